-- The decision, the new position, and the fence: whoever works on the partition now has to take it over again. What
-- stopped it stays in blocked_partitions, where it stops nothing once the position has moved: the same call is answered
-- with it again.
with moved as (
    update projection_progress
    set next_offset = $6,
        owner_epoch = owner_epoch + 1,
        owner       = null,
        updated_at  = now()
    where view = $1 and build = $2 and topic = $3 and partition = $4
)
insert into skipped_ranges (view, topic, partition, from_offset, to_offset, reason, actor, idempotency_key, on_behalf_of)
values ($1, $3, $4, $5, $6, $7, $8, $9, $10)
returning id, decided_at
