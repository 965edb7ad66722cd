select partition, next_offset, commits from projection_progress where view = $1 and build = $2
