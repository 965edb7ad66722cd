-- One letter, its value cut after $3 bytes.
select id, view, reason, error, key, sequence, topic, partition, "offset", record_timestamp, created_at,
       octet_length(payload) as payload_bytes, status, refused_because, decision_id,
       record_key, substring(payload from 1 for $3) as payload, headers, published_at
from dead_letters_view
where view = $1 and id = $2
