select s.id, s.topic, s.partition, s.from_offset, s.to_offset, s.decided_at,
       (select case when starts_with(b.detail, b.code) then b.detail else b.code || ': ' || b.detail end
        from blocked_partitions b
        where b.view = s.view and b.build = $3 and b.topic = s.topic and b.partition = s.partition
          and b.next_offset = s.from_offset),
       s.actor
from skipped_ranges s
where s.view = $1 and s.idempotency_key = $2
