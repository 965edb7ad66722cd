delete from parked_events p
using unnest($3::text[], $4::bigint[]) as u (key, sequence)
where p.view = $1 and p.build = $2 and p.key = u.key and p.sequence = u.sequence
