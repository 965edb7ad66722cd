delete from dead_letters where view = $1 and build = $2
