delete from held_keys where view = $1 and build = $2 and key = any ($3::text[])
