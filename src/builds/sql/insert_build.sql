insert into view_builds (view, build, active, projection_version, rules)
values ($1, $2, false, $3, $4)
on conflict do nothing
