-- Of each partition $1 the next $5 rows: those of commits after $2, but for the first $3 rows of the very next, up to commit $4; each as the ledger
-- has it, or with nulls if somebody took it out. They come in order, since the commits are read by their index and each one's
-- rows stand by key and sequence: to sort them would mean to read all that lies ahead.
select told.partition, told.commit, told.key, told.sequence, l.event_id, l.event_type, l.effect
from unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[])
     as ahead (partition, commit, rows, until)
cross join lateral (
    select c.partition, c.commit, of_commit.key, of_commit.sequence
    from (
        select partition, commit, keys, sequences
        from commits
        where partition = ahead.partition and commit > ahead.commit and commit <= ahead.until
        order by commit
    ) c
    cross join lateral unnest(c.keys, c.sequences) with ordinality as of_commit (key, sequence, place)
    where c.commit > ahead.commit + 1 or of_commit.place > ahead.rows
    limit $5
) told
left join lateral (
    select event_id, event_type, effect from ledger where key = told.key and sequence = told.sequence offset 0
) l on true
