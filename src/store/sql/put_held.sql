-- The reason is that of the sequence the key waits for: a dead letter there, or simply nothing yet.
insert into held_keys (view, build, topic, key, missing_from, missing_to, parked_count, parked_bytes, refused, partition, reason)
select $1, $2, $3, u.key, u.missing_from, u.missing_to, u.parked_count, u.parked_bytes, u.refused::bigint[], u.partition,
       case
           when not u.missing_from = any (u.refused::bigint[]) then 'gap'
           else coalesce((select case d.reason when 'event_id_reused' then 'event_id_reused'
                                               when 'sequence_conflict' then 'conflict'
                                               else 'poison' end
                          from dead_letters d
                          where d.view = $1 and d.build = $2 and d.key = u.key and d.sequence = u.missing_from
                          order by d.id desc limit 1), 'poison')
       end
from unnest($4::text[], $5::bigint[], $6::bigint[], $7::integer[], $8::bigint[], $9::text[], $10::integer[])
     as u (key, missing_from, missing_to, parked_count, parked_bytes, refused, partition)
on conflict (view, build, key) do update
-- A lane that does not know how far another one has come takes nothing back.
set reason       = case when held_keys.missing_from > excluded.missing_from then held_keys.reason else excluded.reason end,
    missing_from = greatest(held_keys.missing_from, excluded.missing_from),
    missing_to   = excluded.missing_to,
    parked_count = excluded.parked_count,
    parked_bytes = excluded.parked_bytes,
    refused      = excluded.refused,
    topic        = excluded.topic,
    partition    = excluded.partition,
    -- another gap has to be proven anew
    watched_ends = case when held_keys.missing_from >= excluded.missing_from then held_keys.watched_ends end,
    proven_at    = case when held_keys.missing_from >= excluded.missing_from then held_keys.proven_at end
