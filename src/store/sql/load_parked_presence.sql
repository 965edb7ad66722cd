-- Which of these (key, sequence) pairs are parked already.
select p.key, p.sequence, p.event_id, p.partition, p."offset", p.record_timestamp,
       (octet_length(p.key) + octet_length(p.payload) + octet_length(p.headers))::bigint
from unnest($3::text[], $4::bigint[]) as u (key, sequence)
join parked_events p on p.view = $1 and p.build = $2 and p.key = u.key and p.sequence = u.sequence
