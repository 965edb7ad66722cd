update view_builds set projection_version = $3, rules = $4 where view = $1 and build = $2
