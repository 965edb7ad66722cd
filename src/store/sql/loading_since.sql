select loading_since::text from view_builds where view = $1 and build = $2 and loading_since is not null
