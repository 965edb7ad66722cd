-- In one snapshot: the active build, and how many commits each partition of build $2 has; of the active one where $2 is null.
select active.build, p.partition, max(p.commits)
from view_builds active
left join projection_progress p on p.view = active.view and p.build = coalesce($2::integer, active.build)
where active.view = $1 and active.active
group by active.build, p.partition
