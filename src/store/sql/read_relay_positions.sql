select partition, next_offset from relay_positions where view = $1 and topic = $2
