-- How far each of the given orders is; orders without a row are left out.
select order_id, last_event_sequence from orders_view where order_id = any($1)
