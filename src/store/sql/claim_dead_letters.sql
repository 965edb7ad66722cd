-- The oldest unpublished dead letters; locked, so that two relays never take the same one.
select id, topic, partition, "offset", record_timestamp, reason, error, record_key, payload, headers, created_at
from dead_letters
where view = $1 and published_at is null
order by id
limit $2
for update skip locked
