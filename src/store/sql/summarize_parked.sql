-- Lowest sequence and number of what is parked behind each key.
select p.key, min(p.sequence), count(*)
from parked_events p
where p.view = $1 and p.build = $2 and p.key = any ($3::text[])
group by p.key
