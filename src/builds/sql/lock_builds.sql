select build, active, loading_since is not null from view_builds where view = $1 order by build for update
