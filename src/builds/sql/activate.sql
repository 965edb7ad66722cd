update view_builds set active = true where view = $1 and build = $2
