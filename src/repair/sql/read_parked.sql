-- The lowest $3 parked events of a key, their values and headers cut after $4 bytes.
select sequence, event_id, topic, partition, "offset", record_timestamp, parked_at, octet_length(payload) as payload_bytes,
       substring(payload from 1 for $4) as payload, substring(headers from 1 for $4) as headers,
       octet_length(payload) <= $4 and octet_length(headers) <= $4 as is_whole
from parked_events
where view = $1 and build = (select build from view_builds where view = $1 and active) and key = $2
order by sequence
limit $3
