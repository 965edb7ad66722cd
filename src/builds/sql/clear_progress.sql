-- As if nothing had ever been consumed, of whatever topic, so that the build is bound anew to the log that there is. The epoch
-- and the commits go on: whoever owned a partition is fenced, and who follows changes sees the rows anew.
update projection_progress
set next_offset = 0, owner_epoch = owner_epoch + 1, owner = null, topic_id = null,
    anchor_offset = null, anchor_crc = null, anchor_timestamp = null, last_record_timestamp = null,
    consumed = 0, applied = 0, duplicate = 0, late = 0, conflict = 0, parked = 0, dead_lettered = 0
where view = $1 and build = $2
