update view_builds set active = true, kept_until = null where view = $1 and build = $2
