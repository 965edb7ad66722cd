insert into order_events (order_id, sequence, event_id, event_type, occurred_at, partition, "offset", effect, payload)
select u.order_id, u.sequence, u.event_id, u.event_type, u.occurred_at, u.partition, u."offset", u.effect,
       u.payload::jsonb
from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::bigint[],
            $8::text[], $9::text[])
     as u (order_id, sequence, event_id, event_type, occurred_at, partition, "offset", effect, payload)
