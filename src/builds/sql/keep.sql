-- The build that readers leave ($2) is kept, and fed, for so many seconds ($3).
update view_builds set active = false, kept_until = now() + make_interval(secs => $3) where view = $1 and build = $2
