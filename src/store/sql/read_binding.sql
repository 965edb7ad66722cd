select source_cluster, source_topic, source_topic_id from view_builds where view = $1 and build = $2
