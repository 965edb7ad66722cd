update view_builds set loading_since = null where view = $1 and build = $2
