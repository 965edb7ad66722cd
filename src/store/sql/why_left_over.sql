-- Why nobody has a use for a build any more: it was kept until then, or the operation that made it is over.
select b.kept_until, o.id, o.state,
       (select count(*) from projection_progress where view = b.view and build = b.build)
       + (select count(*) from held_keys where view = b.view and build = b.build)
       + (select count(*) from parked_events where view = b.view and build = b.build)
       + (select count(*) from dead_letters where view = b.view and build = b.build)
       + (select count(*) from blocked_partitions where view = b.view and build = b.build)
       + (select count(*) from decision_outcomes where view = b.view and build = b.build)
from view_builds b
left join lateral (
    select id, state from operations made
    where made.view = b.view and made.kind = 'rebuild' and made.to_build = b.build
    order by id desc
    limit 1
) o on true
where b.view = $1 and b.build = $2
