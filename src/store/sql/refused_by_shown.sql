-- Whether readers read this build; and if not, records between these offsets that the build which they read has refused for
-- what stands outside of them, and that nobody has answered. Whether another key had their id does not depend on the
-- projection; what Postgres and the registry said of them may be otherwise for another version.
select refused.partition, refused."offset", refused.reason, refused.error, own.active
from view_builds own
left join lateral (
    select l.partition, l."offset", l.reason, l.error
    from view_builds shown
    cross join unnest($4::integer[], $5::bigint[], $6::bigint[]) as span (partition, low, high)
    join dead_letters l on l.view = shown.view and l.build = shown.build and l.topic = $3 and l.partition = span.partition
                       and l."offset" between span.low and span.high
    where shown.view = own.view and shown.active and not own.active
      and (l.reason = 'event_id_reused'
           or l.reason in ('unrepresentable', 'schema_not_found', 'unsupported_schema')
              and own.projection_version = shown.projection_version)
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
) refused on true
where own.view = $1 and own.build = $2
