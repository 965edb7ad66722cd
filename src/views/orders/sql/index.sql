-- The event id's constraint is checked at the end of each statement, not row by row: one order may take over an id that
-- another leaves.
alter table orders
    add constraint orders_pkey primary key (order_id),
    add constraint orders_dedup_event_id unique (dedup_event_id) deferrable;
create index orders_by_status on orders (status, updated_at desc, order_id desc);
create index orders_by_customer on orders (customer_id);
alter table order_items add constraint order_items_pkey primary key (order_id, line_no);
analyze orders, order_items;
