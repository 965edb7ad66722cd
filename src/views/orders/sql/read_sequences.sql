-- How far these orders are. `offset 0` makes it one look by the index for each, however small the table was when this
-- was planned.
select o.order_id, o.last_event_sequence
from unnest($1::text[]) asked (key)
cross join lateral (select order_id, last_event_sequence from orders_view where order_id = asked.key offset 0) o
