-- Partitions of a build that stand where $4 stopped them.
select count(*)
from blocked_partitions b
join projection_progress p using (view, build, topic, partition)
where b.view = $1 and b.build = $2 and b.topic = $3 and b.code = $4 and b.next_offset = p.next_offset
