-- Orders that existed, each only if it is still at the sequence the fold started from.
update orders o
set last_event_sequence = u.last_event_sequence,
    last_event_id       = u.last_event_id,
    dedup_event_id      = u.last_event_id,
    customer_id         = u.customer_id,
    status              = u.status,
    currency            = u.currency,
    total_net           = u.total_net,
    total_gross         = u.total_gross,
    item_count          = u.item_count,
    updated_at          = u.updated_at,
    tax_basis           = u.tax_basis,
    anomalies           = u.anomalies::text[]
from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::numeric[], $8::numeric[],
            $9::integer[], $10::timestamptz[], $11::text[], $12::text[], $13::bigint[])
     as u (order_id, last_event_sequence, last_event_id, customer_id, status, currency, total_net, total_gross,
           item_count, updated_at, tax_basis, anomalies, base_sequence)
where o.order_id = u.order_id
  and o.last_event_sequence = u.base_sequence
