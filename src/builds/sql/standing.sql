-- Where the build stands, by partition, with what it consumed last and what operators have skipped.
select p.partition, p.next_offset, p.consumed, p.anchor_offset, p.anchor_crc, p.anchor_timestamp,
       array(select s.from_offset from skipped_ranges s
             where s.view = p.view and s.topic = p.topic and s.partition = p.partition order by s.id) as skipped_from,
       array(select s.to_offset from skipped_ranges s
             where s.view = p.view and s.topic = p.topic and s.partition = p.partition order by s.id) as skipped_to
from projection_progress p
where p.view = $1 and p.build = $2 and p.topic = $3
order by p.partition
