-- Held keys after $3, in key order: the sweep looks for those that are satisfied by now. And those behind which something is
-- parked although nobody holds them: two lanes on one key can leave that, one releasing it while the other one parks.
with held as (
    select key, partition from held_keys where view = $1 and build = $2 and key > $3 order by key limit $4
), loose as (
    select distinct on (p.key) p.key, p.partition
    from parked_events p
    where p.view = $1 and p.build = $2 and p.key > $3
      -- as far as this page goes, so that a turn of the sweep reads each parked event once
      and p.key <= (select case when count(*) < $4 then (select max(key) from parked_events where view = $1 and build = $2)
                                else max(key) end
                    from held)
      and not exists (select from held_keys h where h.view = $1 and h.build = $2 and h.key = p.key)
    order by p.key limit $4
)
select key, partition from (select * from held union all select * from loose) as page order by key limit $4
