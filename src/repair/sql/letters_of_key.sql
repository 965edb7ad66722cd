-- The letters of a key from a number on, for the page of a held key.
select id, view, reason, error, key, sequence, topic, partition, "offset", record_timestamp, created_at,
       octet_length(payload) as payload_bytes, status, refused_because, decision_id
from dead_letters_view
where view = $1 and key = $2 and sequence >= $3
order by sequence, id
limit $4
