-- The ledger of an order, up to the first row that tells that the rest lies beyond what is asked for: by its number ($2) or
-- by its time ($3, which what was skipped has not). Not beyond $4. With each row the build that it is of, and its rules.
select active.build, active.rules ->> 'default_tax_rate' as default_tax_rate,
       (active.rules ->> 'first_sequence')::bigint as first_sequence,
       e.sequence, e.event_id, e.event_type, e.occurred_at, e.effect, e.payload::text as payload
from (select build, rules from view_builds where view = 'orders' and active) active
cross join lateral (
    select *
    from order_events_view
    where order_id = $1
      and sequence <= least(
          $4::bigint,
          (select min(sequence) from order_events_view where order_id = $1 and sequence >= $2::bigint),
          (select min(sequence)
           from order_events_view
           where order_id = $1 and effect <> 'skipped' and occurred_at > $3::timestamptz))
    order by sequence
) e
order by e.sequence
