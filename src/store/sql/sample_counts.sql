-- What the gauges show. Letters wait for nobody but the active build.
select coalesce((select sum(parked_count) from held_keys where view = $1 and build = $2), 0)::bigint,
       (select count(*) from held_keys where view = $1 and build = $2 and reason = 'gap'),
       (select count(*) from held_keys where view = $1 and build = $2 and reason = 'poison'),
       (select count(*) from held_keys where view = $1 and build = $2 and reason = 'event_id_reused'),
       (select count(*) from held_keys where view = $1 and build = $2 and reason = 'conflict'),
       (select count(*) from held_keys where view = $1 and build = $2 and proven_at is not null),
       (select count(*) from dead_letters where view = $1 and build = $2 and published_at is null
          and exists (select from view_builds where view = $1 and build = $2 and active)),
       coalesce((select sum(consumed - applied - duplicate - late - conflict - parked - dead_lettered)
                 from projection_progress where view = $1 and build = $2), 0)::bigint
