-- The fence: moves a partition only from where we think it is and only for its owner. One row per partition sent,
-- or somebody else owns it. Each commit has the number after that of the one before: the ledger rows of the same
-- transaction carry it. Tells how many decisions there are: a batch folded with fewer is folded again.
update projection_progress p
set next_offset           = u.next_offset,
    anchor_offset         = coalesce(u.anchor_offset, p.anchor_offset),
    anchor_crc            = coalesce(u.anchor_crc, p.anchor_crc),
    anchor_timestamp      = coalesce(u.anchor_timestamp, p.anchor_timestamp),
    last_record_timestamp = coalesce(u.record_time, p.last_record_timestamp),
    consumed              = p.consumed + u.consumed,
    applied               = p.applied + u.applied,
    duplicate             = p.duplicate + u.duplicate,
    late                  = p.late + u.late,
    conflict              = p.conflict + u.conflict,
    parked                = p.parked + u.parked,
    dead_lettered         = p.dead_lettered + u.dead_lettered,
    commits               = u.commit,
    updated_at            = now()
from unnest($4::integer[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
            $11::timestamptz[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[],
            $17::bigint[], $18::bigint[], $19::bigint[])
     as u (partition, expected_offset, epoch, next_offset, anchor_offset, anchor_crc, anchor_timestamp, record_time,
           consumed, applied, duplicate, late, conflict, parked, dead_lettered, commit)
where p.view = $1
  and p.build = $2
  and p.topic = $3
  and p.partition = u.partition
  and p.next_offset = u.expected_offset
  and p.owner_epoch = u.epoch
  and p.commits = u.commit - 1
returning p.partition, p.decisions
