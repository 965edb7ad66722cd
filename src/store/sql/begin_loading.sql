update view_builds set loading_since = now() where view = $1 and build = $2
