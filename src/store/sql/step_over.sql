-- A batch that cannot be read begins at $5, inside what an operator has skipped: goes on behind it. The epoch fences
-- whoever still works before it.
update projection_progress p
set next_offset = s.to_offset,
    owner_epoch = p.owner_epoch + 1,
    owner       = null,
    updated_at  = now()
from (select max(to_offset) as to_offset
      from skipped_ranges
      where view = $1 and topic = $3 and partition = $4 and from_offset <= $5 and to_offset > $5) s
where p.view = $1 and p.build = $2 and p.topic = $3 and p.partition = $4 and p.owner_epoch = $6
  and p.next_offset < s.to_offset
returning p.next_offset
