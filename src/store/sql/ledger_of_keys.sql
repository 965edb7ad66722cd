select key, sequence, event_id, event_type, occurred_at, partition, "offset", effect, payload
from ledger
where key = any ($1::text[])
order by key, sequence
