-- Batches folded before this are folded again.
update projection_progress set decisions = decisions + 1 where view = $1
