-- What a batch made of decisions: folded with them, passed them over, or found that it cannot fold with them. An earlier decision about
-- the same number, which the active build had refused, will not have its turn any more: it may be among those that were passed
-- over, and each has one outcome. What the active build refuses counts as never made.
with made as (
    select u.id, u.refused from unnest($3::bigint[], $4::text[]) as u (id, refused)
), replaced as (
    select distinct on (earlier.id) earlier.id, 'decision ' || d.id || ' was made in its place' as refused
    from made u
    join event_decisions d on d.id = u.id and u.refused is null
    join event_decisions earlier
        on earlier.view = d.view and earlier.key = d.key and earlier.sequence between d.sequence and d.sequence_to
       and earlier.id < d.id
    join decision_outcomes o
        on o.decision_id = earlier.id and o.build = $2 and o.taken_at is null and o.refused is null
    order by earlier.id, d.id desc
), outcome as (
    select id, refused from replaced
    union all
    select id, refused from made where id not in (select id from replaced)
), settled as (
    insert into decision_outcomes as o (decision_id, view, build, taken_at, refused)
    select id, $1, $2, case when refused is null then now() end, refused from outcome
    on conflict (decision_id, build) do update
    set taken_at = case when excluded.refused is null then coalesce(o.taken_at, now()) end,
        refused  = excluded.refused
)
update event_decisions d
set revoked = true
from outcome u, view_builds b
where d.id = u.id and u.refused is not null and not d.revoked and b.view = $1 and b.build = $2 and b.active
