-- What the tables of each schema take, and about how many rows they have, the ledger and its commits left out.
select n.nspname::text,
       coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint,
       coalesce(sum(pg_stat_get_live_tuples(c.oid)) filter (where c.relname not in ('ledger', 'commits')), 0)::bigint
from pg_namespace n
join pg_class c on c.relnamespace = n.oid and c.relkind = 'r'
where n.nspname = any ($1::text[])
group by n.nspname
