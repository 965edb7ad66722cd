update view_builds set active = false where view = $1 and build <> $2 and active
