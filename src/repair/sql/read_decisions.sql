select id, view, action, key, sequence, sequence_to, topic, partition, "offset", reason, actor, decided_at, taken_at,
       refused, octet_length(payload) as payload_bytes
from event_decisions
where id = any ($1::bigint[])
order by id
