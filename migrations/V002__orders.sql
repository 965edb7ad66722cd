-- The orders view, build 1. Each build of a view owns a schema; readers see the stable names below,
-- which are plain SQL views over the active build, so a cutover changes nothing for them.
create schema orders_1;

create table orders_1.orders (
    order_id            text        collate "C" primary key,
    last_event_sequence bigint      not null,
    item_count          integer     not null,
    updated_at          timestamptz not null,
    total_net           numeric     not null,
    total_gross         numeric     not null,
    status              text        collate "C",
    currency            text        collate "C",
    customer_id         text        collate "C",
    tax_basis           text        not null,
    last_event_id       text        collate "C" not null,
    -- Checked at the end of each statement, not row by row: one order may take over an id that another leaves.
    dedup_event_id      text        collate "C" not null constraint orders_dedup_event_id unique deferrable,
    anomalies           text[]      not null
);
create index orders_by_status on orders_1.orders (status, updated_at desc, order_id desc);
create index orders_by_customer on orders_1.orders (customer_id);

create table orders_1.order_items (
    order_id         text    collate "C" not null,
    line_no          integer not null,
    item_id          text    not null,
    sku              text    not null,
    qty              numeric not null,
    price            numeric not null,
    tax_rate         numeric,
    net_line_total   numeric not null,
    gross_line_total numeric not null,
    primary key (order_id, line_no)
);

-- The ledger: one row for every sequence number an order has consumed.
create table orders_1.order_events (
    order_id    text        collate "C" not null,
    sequence    bigint      not null,
    event_id    text        collate "C" not null,
    event_type  text        collate "C" not null,
    occurred_at timestamptz not null,
    partition   integer     not null,
    "offset"    bigint      not null,
    -- applied | duplicate (same event id under a new number) | unknown_type
    effect      text        collate "C" not null,
    payload     jsonb       not null,
    primary key (order_id, sequence)
);

create view orders_view as
    select order_id, customer_id, status, currency, total_net, total_gross, item_count,
           last_event_sequence, last_event_id, dedup_event_id, tax_basis, anomalies, updated_at
    from orders_1.orders;

create view order_items_view as
    select order_id, line_no, item_id, sku, qty, price, tax_rate, net_line_total, gross_line_total
    from orders_1.order_items;

create view order_events_view as
    select order_id, sequence, event_id, event_type, occurred_at, partition, "offset", effect, payload
    from orders_1.order_events;

insert into view_builds (view, build) values ('orders', 1);
