-- Orders by id, without their lines. `offset 0` makes it one look by the index for each.
select o.order_id, o.customer_id, o.status, o.currency, o.total_net, o.total_gross, o.item_count,
       o.last_event_sequence, o.last_event_id, o.updated_at, o.tax_basis, o.anomalies
from unnest($1::text[]) asked (key)
cross join lateral (select * from orders_view where order_id = asked.key offset 0) o
