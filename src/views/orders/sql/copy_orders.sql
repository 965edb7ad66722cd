-- Orders seen for the first time.
copy orders (order_id, last_event_sequence, last_event_id, dedup_event_id, customer_id, status, currency, total_net,
             total_gross, item_count, updated_at, tax_basis, anomalies)
from stdin (format binary)
