-- Becomes the owner: raises the epoch, which fences every earlier owner. $6 is where a partition without progress starts.
insert into projection_progress (view, build, topic, topic_id, partition, next_offset, owner_epoch, owner)
values ($1, $2, $3, $4, $5, $6, 1, $7)
on conflict (view, build, topic, partition)
    do update set owner_epoch = projection_progress.owner_epoch + 1,
                  owner       = excluded.owner,
                  topic_id    = coalesce(projection_progress.topic_id, excluded.topic_id)
returning next_offset, owner_epoch, topic_id, anchor_offset, anchor_crc, anchor_timestamp, decisions, commits
