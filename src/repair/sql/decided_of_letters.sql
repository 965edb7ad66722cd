-- Decisions that answer these letters by position.
select d.id, e.id, e.action, o.taken_at is not null
from dead_letters d
join event_decisions e on e.view = d.view and e.topic = d.topic and e.partition = d.partition and e."offset" = d."offset"
left join decision_outcomes o
    on o.decision_id = e.id and o.build = (select build from view_builds where view = e.view and active)
where d.id = any ($1::bigint[]) and e.topic is not null and not e.revoked
