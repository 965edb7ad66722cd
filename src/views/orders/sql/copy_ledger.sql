copy order_events (order_id, sequence, event_id, event_type, occurred_at, partition, "offset", effect, payload)
from stdin (format binary)
