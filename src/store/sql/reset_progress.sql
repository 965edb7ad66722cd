-- Back to the beginning of the log. The epoch goes on: whoever owned a partition is fenced.
update projection_progress p
set next_offset = begin.low, owner_epoch = p.owner_epoch + 1, owner = null,
    anchor_offset = null, anchor_crc = null, anchor_timestamp = null, last_record_timestamp = null,
    consumed = 0, applied = 0, duplicate = 0, late = 0, conflict = 0, parked = 0, dead_lettered = 0
from unnest($4::integer[], $5::bigint[]) as begin (partition, low)
where p.view = $1 and p.build = $2 and p.topic = $3 and p.partition = begin.partition
