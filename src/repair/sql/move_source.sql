-- The positions in topic $2 are those of the same records in topic $3: whatever is known by them is known by the new name.
-- Cluster and topic id are learnt at the next takeover, which compares the last record of each partition. Whoever reads the
-- old topic is fenced.
with moved as (
    insert into source_moves (view, from_cluster, from_topic, from_topic_id, to_topic, reason, actor)
    select $1, min(source_cluster), $2, min(source_topic_id), $3, $4, $5
    from view_builds where view = $1 and source_topic = $2
    returning id
), bound as (
    update view_builds set source_cluster = null, source_topic = $3, source_topic_id = null, bound_at = now()
    where view = $1 and source_topic = $2
    returning build
), progress as (
    update projection_progress set topic = $3, topic_id = null, owner = null, owner_epoch = owner_epoch + 1
    where view = $1 and topic = $2
), held as (
    update held_keys set topic = $3 where view = $1 and topic = $2
), parked as (
    update parked_events set topic = $3 where view = $1 and topic = $2
), letters as (
    update dead_letters set topic = $3 where view = $1 and topic = $2
), decisions as (
    update event_decisions set topic = $3 where view = $1 and topic = $2
), blocked as (
    update blocked_partitions set topic = $3 where view = $1 and topic = $2
), skipped as (
    update skipped_ranges set topic = $3 where view = $1 and topic = $2
)
select (select id from moved), (select count(*) from bound)
