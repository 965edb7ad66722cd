-- The lowest $4 parked events of each key, whole.
select p.key, p.sequence, p.event_id, p.partition, p."offset", p.record_timestamp,
       (octet_length(p.key) + octet_length(p.payload) + octet_length(p.headers))::bigint, p.payload, p.headers
from unnest($3::text[]) as u (key)
cross join lateral (
    select * from parked_events e
    where e.view = $1 and e.build = $2 and e.key = u.key
    order by e.sequence
    limit $4
) p
