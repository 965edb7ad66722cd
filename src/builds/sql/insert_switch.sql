insert into build_switches (view, from_build, to_build, from_commits, to_commits, operation_id) values ($1, $2, $3, $4, $5, $6)
