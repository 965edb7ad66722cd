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
      and not exists (select from event_decisions d
                      left join decision_outcomes o on o.decision_id = d.id and o.build = l.build
                      where d.view = l.view and d.topic = l.topic and d.partition = l.partition and d."offset" = l."offset"
                        and o.refused is null)
) refused on true
where own.view = $1 and own.build = $2
