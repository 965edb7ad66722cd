select p.partition, p.next_offset, p.last_record_timestamp, b.detail
from projection_progress p
left join blocked_partitions b
    on b.view = p.view and b.build = p.build and b.topic = p.topic and b.partition = p.partition
   and b.next_offset = p.next_offset
where p.view = $1 and p.build = $2 and p.topic = $3
