-- What the gauges show: each table is read once. Letters wait for nobody but the active build.
select h.parked, h.gap, h.poison, h.event_id_reused, h.conflict, h.proven, d.unpublished, p.difference
from (
    select coalesce(sum(parked_count), 0)::bigint as parked,
           count(*) filter (where reason = 'gap') as gap,
           count(*) filter (where reason = 'poison') as poison,
           count(*) filter (where reason = 'event_id_reused') as event_id_reused,
           count(*) filter (where reason = 'conflict') as conflict,
           count(*) filter (where proven_at is not null) as proven
    from held_keys where view = $1 and build = $2
) h
cross join (
    select count(*) as unpublished
    from dead_letters
    where view = $1 and build = $2 and published_at is null
      and exists (select from view_builds where view = $1 and build = $2 and active)
) d
cross join (
    select coalesce(sum(consumed - applied - duplicate - late - conflict - parked - dead_lettered), 0)::bigint as difference
    from projection_progress where view = $1 and build = $2
) p
