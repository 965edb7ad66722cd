-- Whoever binds takes turns with others who bind, and with whoever decides or publishes.
select source_cluster, source_topic, source_topic_id from view_builds where view = $1 and build = $2 for update
