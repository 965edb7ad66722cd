-- What was decided about these keys, in order of the numbers; without what this build has found that it cannot fold with.
-- What only another build refused is tried here, behind the decision that was made in its place.
-- Unless $4, without what this build has folded with, too: that lies behind the key as it is stored.
select d.key, d.id, d.action, d.sequence, d.sequence_to, d.partition, d."offset", d.record_timestamp, d.payload, d.headers,
       d.reason, d.decided_at, o.decision_id is not null and o.taken_at is null as is_awaited
from event_decisions d
left join decision_outcomes o on o.decision_id = d.id and o.build = $2
where d.view = $1 and d.key = any ($3::text[]) and o.refused is null
  and (o.taken_at is null or $4::boolean)
order by d.key, d.sequence, d.id desc
