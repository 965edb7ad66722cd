-- One order with its lines and its held state, in one snapshot. One row, unless no build is active.
-- The lines come as JSON text, so that numerics keep every digit on their way to the client.
select active.build,
       o.order_id, o.customer_id, o.status, o.currency, o.total_net::text as total_net,
       o.total_gross::text as total_gross, o.item_count, o.last_event_sequence, o.last_event_id, o.updated_at,
       o.tax_basis, o.anomalies,
       (select '[' || coalesce(string_agg(row_to_json(line)::text, ',' order by line."lineNo"), '') || ']'
        from (select i.line_no as "lineNo", i.item_id as "itemId", i.sku, i.qty::text, i.price::text,
                     i.tax_rate::text as "taxRate", i.net_line_total::text as "netLineTotal",
                     i.gross_line_total::text as "grossLineTotal"
              from order_items_view i
              where i.order_id = o.order_id) line) as items,
       h.reason as held_reason, h.missing_from, h.missing_to, h.parked_count, h.parked_bytes, h.since,
       (select max(d.id)
        from dead_letters d
        where d.view = 'orders' and d.build = active.build and d.key = h.key and d.sequence = h.missing_from)
           as dead_letter_id
from (select build from view_builds where view = 'orders' and active) active
left join orders_view o on o.order_id = $1
left join held_keys h on h.view = 'orders' and h.build = active.build and h.key = $1
