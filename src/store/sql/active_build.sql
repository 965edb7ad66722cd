select build from view_builds where view = $1 and active
