-- The oldest unpublished dead letters of the active build, for whoever has the relay's lock. What another build refuses is
-- its own affair: nobody else reads its rows.
select id, topic, partition, "offset", record_timestamp, reason, error, record_key, payload, headers, created_at
from dead_letters
where view = $1 and build = (select build from view_builds where view = $1 and active) and published_at is null
order by id
limit $2
for update skip locked
