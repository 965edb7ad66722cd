-- The records of these letters, whole.
select id, record_key, payload, headers from dead_letters where view = $1 and id = any ($2::bigint[])
