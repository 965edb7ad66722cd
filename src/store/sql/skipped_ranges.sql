select from_offset, to_offset from skipped_ranges where view = $1 and topic = $2 and partition = $3 order by from_offset
