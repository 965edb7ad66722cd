-- The oldest unpublished dead letters of the active build: $2 of them at most, and no more once they come to $3 bytes. The
-- first is there however large. What another build refuses is its own affair: nobody else reads its rows.
select id, topic, partition, "offset", record_timestamp, reason, error, record_key, payload, headers, created_at
from dead_letters
where published_at is null
  and id = any (array(
      select id
      from (select id, sum(bytes) over (order by id) - bytes as before
            from (select id, octet_length(headers)::bigint + coalesce(octet_length(record_key), 0)
                             + coalesce(octet_length(payload), 0) as bytes
                  from dead_letters
                  where view = $1 and build = (select build from view_builds where view = $1 and active)
                    and published_at is null
                  order by id
                  limit $2) as oldest) as added
      where before < $3::bigint))
order by id
for update skip locked
