-- What the sink writes: one row for each order, no lines, no history, no sequence check, no fence.
create table orders (
    order_id            text primary key,
    customer_id         text             not null,
    status              text             not null,
    currency            text             not null,
    total_net           double precision not null,
    total_gross         double precision not null,
    item_count          integer          not null,
    last_event_sequence bigint           not null,
    last_event_id       text             not null,
    updated_at          bigint           not null
);
create index orders_status on orders (status, updated_at desc);
