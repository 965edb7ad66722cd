-- Only the owner says so, at its own position; `since` stays while it stands there.
insert into blocked_partitions (view, build, topic, partition, next_offset, code, detail)
select p.view, p.build, p.topic, p.partition, p.next_offset, $6, $7
from projection_progress p
where p.view = $1 and p.build = $2 and p.topic = $3 and p.partition = $4 and p.owner_epoch = $5
on conflict (view, build, topic, partition) do update
set since       = case when blocked_partitions.next_offset = excluded.next_offset then blocked_partitions.since else now() end,
    next_offset = excluded.next_offset,
    code        = excluded.code,
    detail      = excluded.detail
