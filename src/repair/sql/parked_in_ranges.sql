-- The first parked number in each range that holds one.
select u.key, u.first, p.sequence
from unnest($2::text[], $3::bigint[], $4::bigint[]) as u (key, first, last)
cross join lateral (
    select e.sequence
    from parked_events e
    where e.view = $1
      and e.build = (select build from view_builds where view = $1 and active)
      and e.key = u.key
      and e.sequence between u.first and u.last
    order by e.sequence
    limit 1
) p
