-- Orders by id, with the ids of all their events (the ledger's primary key starts with the key).
select o.order_id, o.last_event_sequence, o.last_event_id,
       array(select e.event_id from ledger e where e.key = o.order_id),
       o.customer_id, o.status, o.currency, o.total_net, o.total_gross, o.item_count,
       o.updated_at, o.tax_basis, o.anomalies
from orders o
where o.order_id = any ($1::text[])
