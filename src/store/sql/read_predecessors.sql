-- The row of the ledger before each of these, of the same key.
select asked.place, l.commit_partition, l.commit, l.sequence
from unnest($1::text[], $2::bigint[]) with ordinality asked (key, sequence, place)
cross join lateral (
    select commit_partition, commit, sequence
    from ledger
    where key = asked.key and sequence < asked.sequence
    order by sequence desc
    limit 1
) l
