-- Orders by id, each with its lines and its held state, all in one snapshot. One row for each id, unless no build is
-- active. Each step is one look by an index, however little Postgres knows of the tables: `offset 0` keeps it from
-- joining otherwise, `+ 0` from reading all dead letters in the order of their ids.
select asked.place, active.build,
       o.order_id, o.customer_id, o.status, o.currency, o.total_net, o.total_gross, o.item_count,
       o.last_event_sequence, o.last_event_id, o.updated_at, o.tax_basis, o.anomalies,
       array(select row(i.line_no, i.item_id, i.sku, i.qty, i.price, i.tax_rate, i.net_line_total, i.gross_line_total)
             from order_items_view i
             where i.order_id = o.order_id
             order by i.line_no) as items,
       h.reason as held_reason, h.missing_from, h.missing_to, h.parked_count, h.parked_bytes, h.since,
       case when h.key is not null then
           (select max(d.id + 0)
            from dead_letters d
            where d.view = 'orders' and d.build = active.build and d.key = h.key and d.sequence = h.missing_from)
       end as dead_letter_id
from (select build from view_builds where view = 'orders' and active) active
cross join unnest($1::text[]) with ordinality asked (key, place)
left join lateral (select * from orders_view where order_id = asked.key offset 0) o on true
left join lateral (
    select * from held_keys where view = 'orders' and build = active.build and key = asked.key offset 0
) h on true
