select id, topic, partition, from_offset, to_offset, decided_at
from skipped_ranges
where view = $1 and idempotency_key = $2
