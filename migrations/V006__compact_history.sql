-- A compact history (projector.history) has no payloads.
alter table orders_1.order_events alter column payload drop not null;
