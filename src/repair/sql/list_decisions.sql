-- Decisions, the newest first. Null parameters do not filter.
select id, view, action, key, sequence, sequence_to, topic, partition, "offset", reason, actor, decided_at, taken_at,
       refused, octet_length(payload) as payload_bytes
from event_decisions
where view = $1
  and ($2::text is null or key = $2)
  and ($3::text is null or actor = $3)
  and ($4::text is null or action = $4)
  and ($5::bigint is null or id < $5)
order by id desc
limit $6
