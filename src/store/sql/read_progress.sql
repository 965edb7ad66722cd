select partition, next_offset, owner_epoch, decisions, commits from projection_progress
where view = $1 and build = $2 and topic = $3 and partition = any ($4::integer[])
