-- Of each partition $1 the next $5 rows of the ledger: those of commits after $2, but for the first $3 rows, up to commit $4.
-- Rows of one commit stand by key and sequence.
select l.commit_partition, l.commit_number, l.key, l.sequence, l.event_id, l.event_type, l.effect
from unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[])
     as ahead (partition, commit, rows, until)
cross join lateral (
    select commit_partition, commit_number, key, sequence, event_id, event_type, effect
    from ledger
    where commit_partition = ahead.partition and commit_number > ahead.commit and commit_number <= ahead.until
    order by commit_number, key, sequence
    offset ahead.rows
    limit $5
) l
