-- Decisions that answer these letters by position.
select d.id, e.id, e.action, e.taken_at is not null
from dead_letters d
join event_decisions e on e.view = d.view and e.topic = d.topic and e.partition = d.partition and e."offset" = d."offset"
where d.id = any ($1::bigint[]) and e.topic is not null and e.refused is null
