select exists (select from projection_progress where view = $1 and topic = $2)
