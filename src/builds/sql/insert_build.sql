insert into view_builds (view, build, active) values ($1, $2, false) on conflict do nothing
