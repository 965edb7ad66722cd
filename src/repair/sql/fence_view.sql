-- Whoever owns a partition of any build of the view commits nothing more: batches that are under way have ended by now.
update projection_progress set owner_epoch = owner_epoch + 1, owner = null where view = $1
