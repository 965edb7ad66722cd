select dedup_event_id, order_id from orders where dedup_event_id = any ($1::text[])
