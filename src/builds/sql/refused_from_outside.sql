-- Records of these keys that were refused for what stands outside of them, and that nobody has answered: Postgres could not
-- hold them, another key had their id, or nobody knew their schema. Whoever reads them again cannot tell by itself.
select l.partition, l."offset", l.reason, l.error
from dead_letters l
where l.view = $1 and l.build = $2 and l.topic = $3 and l.key = any ($4::text[])
  and l.reason in ('unrepresentable', 'event_id_reused', 'schema_not_found', 'unsupported_schema')
  -- What was imported says nothing of what this build has refused.
  and l.published_at is distinct from l.created_at
  -- By each of two partial indexes: neither serves both.
  and not exists (select from (select d.id from event_decisions d
                               where d.view = l.view and d.topic = l.topic and d.partition = l.partition
                                 and d."offset" = l."offset" and not d.revoked
                               union all
                               select d.id from event_decisions d
                               where d.view = l.view and d.topic = l.topic and d.partition = l.partition
                                 and d."offset" = l."offset" and d.revoked) as answer
                  left join decision_outcomes o on o.decision_id = answer.id and o.build = l.build
                  where o.refused is null)
