-- Held keys after $3, in key order: the sweep looks for those that are satisfied by now.
select key, partition from held_keys where view = $1 and build = $2 and key > $3 order by key limit $4
