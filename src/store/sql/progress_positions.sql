select partition, next_offset, last_record_timestamp from projection_progress
where view = $1 and build = $2 and topic = $3
