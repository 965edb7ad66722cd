delete from view_builds where view = $1 and build = $2
