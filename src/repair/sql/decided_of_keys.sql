select e.key, e.id, e.action, e.sequence, e.sequence_to, o.taken_at is not null
from event_decisions e
left join decision_outcomes o
    on o.decision_id = e.id and o.build = (select build from view_builds where view = e.view and active)
where e.view = $1 and e.key = any ($2::text[]) and not e.revoked
order by e.key, e.sequence
