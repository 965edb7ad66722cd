-- The stable names, over the tables of the build whose schema is first in the search path. Columns may be added at the end.
create or replace view public.orders_view as
    select order_id, customer_id, status, currency, total_net, total_gross, item_count,
           last_event_sequence, last_event_id, dedup_event_id, tax_basis, anomalies, updated_at
    from orders;
create or replace view public.order_items_view as
    select order_id, line_no, item_id, sku, qty, price, tax_rate, net_line_total, gross_line_total
    from order_items;
create or replace view public.order_events_view as
    select key as order_id, sequence, event_id, event_type, occurred_at, partition, "offset", effect,
           payload::jsonb as payload
    from ledger;
