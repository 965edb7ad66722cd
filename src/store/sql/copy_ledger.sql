copy ledger (key, sequence, event_id, event_type, occurred_at, partition, "offset", effect, payload, commit_partition,
             commit)
from stdin (format binary)
