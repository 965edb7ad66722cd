-- The tables of a build, without indexes and constraints: index.sql adds those, at once or when the rows are there.
create table orders (
    order_id            text        collate "C" not null,
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
    dedup_event_id      text        collate "C" not null,
    anomalies           text[]      not null
);
create table order_items (
    order_id         text    collate "C" not null,
    line_no          integer not null,
    item_id          text    not null,
    sku              text    not null,
    qty              numeric not null,
    price            numeric not null,
    tax_rate         numeric,
    net_line_total   numeric not null,
    gross_line_total numeric not null
);
