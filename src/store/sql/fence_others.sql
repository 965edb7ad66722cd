-- Whoever read another topic into the build, which has consumed nothing of it yet, does not begin to now.
update projection_progress set owner_epoch = owner_epoch + 1, owner = null
where view = $1 and build = $2 and topic <> $3
