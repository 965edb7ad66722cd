delete from blocked_partitions where view = $1 and build = $2
