-- How far a build is, and what became of everything it consumed.
select topic, partition, next_offset, owner, owner_epoch,
       consumed, applied, duplicate, late, conflict, parked, dead_lettered
from projection_progress
where view = $1 and build = $2
order by topic, partition
