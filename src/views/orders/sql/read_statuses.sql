-- Fragment: the distinct statuses, by a loose scan that touches one index entry per status.
-- Its last row is null, which matches nothing below; orders without a status have a branch of their own.
with recursive statuses(status) as (
    (select status from orders_view order by status limit 1)
    union all
    select (select o.status from orders_view o where o.status > s.status order by o.status limit 1)
    from statuses s
    where s.status is not null
)
