-- Orders seen for the first time. Fewer rows than sent means that somebody else created one: the caller rolls back.
insert into orders (order_id, last_event_sequence, last_event_id, dedup_event_id, customer_id, status, currency,
                    total_net, total_gross, item_count, updated_at, tax_basis, anomalies)
select u.order_id, u.last_event_sequence, u.last_event_id, u.last_event_id, u.customer_id, u.status, u.currency,
       u.total_net, u.total_gross, u.item_count, u.updated_at, u.tax_basis, u.anomalies::text[]
from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::numeric[], $8::numeric[],
            $9::integer[], $10::timestamptz[], $11::text[], $12::text[])
     as u (order_id, last_event_sequence, last_event_id, customer_id, status, currency, total_net, total_gross,
           item_count, updated_at, tax_basis, anomalies)
on conflict (order_id) do nothing
