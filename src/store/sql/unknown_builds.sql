-- Numbers of the view $1 under which something is there although no build has them: schemas that look like a build's, and rows
-- of the control tables. Nothing of a view without an active build: who has lost its control rows wants the rest back.
with known as (
    select build from view_builds where view = $1
),
gaps (above, below) as (
    select build, coalesce(lead(build) over (order by build), 2147483647) from known
    union all
    select -2147483648, min(build) from known having count(*) > 0
),
found (build, has_schema, rows) as (
    select s.build, false, count(*) from gaps
    join projection_progress s on s.view = $1 and s.build > above and s.build < below group by s.build
    union all
    select s.build, false, count(*) from gaps
    join held_keys s on s.view = $1 and s.build > above and s.build < below group by s.build
    union all
    select s.build, false, count(*) from gaps
    join parked_events s on s.view = $1 and s.build > above and s.build < below group by s.build
    union all
    select s.build, false, count(*) from gaps
    join dead_letters s on s.view = $1 and s.build > above and s.build < below group by s.build
    union all
    select s.build, false, count(*) from gaps
    join blocked_partitions s on s.view = $1 and s.build > above and s.build < below group by s.build
    union all
    select s.build, false, count(*) from gaps
    join decision_outcomes s on s.view = $1 and s.build > above and s.build < below group by s.build
    union all
    -- It is ours if it is empty, or has a ledger as the engine makes it.
    select substring(n.nspname from '[0-9]+$')::integer, true, 0
    from pg_namespace n
    where n.nspname ~ ('^' || $1 || '_[1-9][0-9]{0,8}$')
      and n.nspname not in (select $1 || '_' || build from known)
      and (not exists (select from pg_class c where c.relnamespace = n.oid)
           or exists (select from pg_class c
                      join pg_attribute a on a.attrelid = c.oid and a.attname = 'commit_partition'
                      where c.relnamespace = n.oid and c.relname = 'ledger' and c.relkind = 'r'))
)
select build, bool_or(has_schema), sum(rows)::bigint
from found
where exists (select from view_builds where view = $1 and active)
group by build
order by build
