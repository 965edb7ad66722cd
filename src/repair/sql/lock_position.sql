-- Where the partition stands, and what stops it there: a sentence that begins with its code, or null.
select p.next_offset,
       (select case when starts_with(b.detail, b.code) then b.detail else b.code || ': ' || b.detail end
        from blocked_partitions b
        where b.view = p.view and b.build = p.build and b.topic = p.topic and b.partition = p.partition
          and b.next_offset = p.next_offset)
from projection_progress p
where p.view = $1 and p.build = $2 and p.topic = $3 and p.partition = $4
for update of p
