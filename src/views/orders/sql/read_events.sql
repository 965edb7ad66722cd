-- One page of an order's history, in one snapshot with whether the order is known.
-- A known order without further events gives one row of nulls, an unknown one no row.
select e.sequence, e.event_id, e.event_type, e.occurred_at, e.partition, e."offset", e.effect,
       e.payload::text as payload
from (select from orders_view where order_id = $1) known
left join lateral (
    select * from order_events_view
    where order_id = $1 and sequence > $2
    order by sequence
    limit $3
) e on true
order by e.sequence
