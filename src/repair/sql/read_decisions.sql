select e.id, e.view, e.action, e.key, e.sequence, e.sequence_to, e.topic, e.partition, e."offset", e.reason, e.actor,
       e.on_behalf_of, e.decided_at, o.taken_at, o.refused, octet_length(e.payload) as payload_bytes
from event_decisions e
left join decision_outcomes o
    on o.decision_id = e.id and o.build = (select build from view_builds where view = e.view and active)
where e.id = any ($1::bigint[])
order by e.id
