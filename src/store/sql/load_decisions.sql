-- What was decided about these keys, in order of the numbers.
select key, id, action, sequence, sequence_to, partition, "offset", record_timestamp, payload, headers, reason, decided_at
from event_decisions
where view = $1 and key = any ($2::text[]) and refused is null
order by key, sequence
