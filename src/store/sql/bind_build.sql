update view_builds
set source_cluster = $3, source_topic = $4, source_topic_id = $5, bound_at = now()
where view = $1 and build = $2
