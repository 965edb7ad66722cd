-- Decisions with what the active build made of them, the newest first. Null parameters do not filter.
select e.id, e.view, e.action, e.key, e.sequence, e.sequence_to, e.topic, e.partition, e."offset", e.reason, e.actor,
       e.on_behalf_of, e.decided_at, o.taken_at, o.refused, octet_length(e.payload) as payload_bytes
from event_decisions e
left join decision_outcomes o
    on o.decision_id = e.id and o.build = (select build from view_builds where view = e.view and active)
where e.view = $1
  and ($2::text is null or e.key = $2)
  and ($3::text is null or e.actor = $3)
  and ($4::text is null or e.action = $4)
  and ($5::bigint is null or e.id < $5)
order by e.id desc
limit $6
