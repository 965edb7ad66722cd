-- Whoever owns a partition of the build has gone by other rules, or by none that were stored.
update projection_progress set owner_epoch = owner_epoch + 1, owner = null where view = $1 and build = $2
