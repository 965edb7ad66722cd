-- How many rows each of these keys has, and how many bytes of payload, which is known without reading them.
select key, count(*), coalesce(sum(octet_length(payload)), 0)::bigint
from ledger
where key = any ($1::text[])
group by key
