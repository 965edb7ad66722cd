update view_builds set rules = $3 where view = $1 and build = $2
