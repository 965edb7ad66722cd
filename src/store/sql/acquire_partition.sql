-- Becomes the owner: raises the epoch, which fences every earlier owner. $6 is where a partition without progress starts.
-- No row: the build was bound to another topic meanwhile, or has other rules than the owner goes by. Whoever binds or
-- settles waits for us, or we for them.
insert into projection_progress (view, build, topic, topic_id, partition, next_offset, owner_epoch, owner)
select $1, $2, $3, $4, $5, $6, 1, $7
from (select
      from view_builds
      where view = $1 and build = $2 and source_topic = $3 and projection_version = $8 and coalesce(rules, $9) = $9
      for share) as bound
on conflict (view, build, topic, partition)
    do update set owner_epoch = projection_progress.owner_epoch + 1,
                  owner       = excluded.owner,
                  topic_id    = coalesce(projection_progress.topic_id, excluded.topic_id)
returning next_offset, owner_epoch, topic_id, anchor_offset, anchor_crc, anchor_timestamp, decisions, commits
