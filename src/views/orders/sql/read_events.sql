-- One page of an order's history, in one snapshot with whether the order is known: of the events after number $2 up to $3, and no
-- more than $4 bytes of payloads together, as they are sent; but the first one however large. Event by event, so that of what
-- follows nothing but the very next is read, which says by `fits` that the page ends before it.
-- A known order without further events gives one row of nulls, an unknown one no row.
with recursive page as (
    select head.*, 1::bigint as place, coalesce(octet_length(head.payload), 0)::bigint as bytes, true as fits
    from (
        select sequence, event_id, event_type, occurred_at, partition, "offset", effect, payload::text as payload
        from order_events_view
        where order_id = $1 and sequence > $2
        order by sequence
        limit 1
    ) head
    union all
    select further.*, page.place + 1, page.bytes + coalesce(octet_length(further.payload), 0),
           page.place < $3::bigint and page.bytes + coalesce(octet_length(further.payload), 0) <= $4::bigint
    from page
    cross join lateral (
        select sequence, event_id, event_type, occurred_at, partition, "offset", effect, payload::text as payload
        from order_events_view
        where order_id = $1 and sequence > page.sequence
        order by sequence
        limit 1
    ) further
    where page.fits
)
select page.sequence, page.event_id, page.event_type, page.occurred_at, page.partition, page."offset", page.effect,
       case when page.fits then page.payload end as payload, page.fits
from (select from orders_view where order_id = $1) known
left join page on true
order by page.sequence
