delete from held_keys where view = $1 and build = $2
