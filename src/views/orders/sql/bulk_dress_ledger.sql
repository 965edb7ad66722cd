alter table order_events add constraint order_events_pkey primary key (order_id, sequence);
analyze order_events;
