-- Of these rows, by place, those that this build's ledger has among its commits up to $4 of each partition $3. Rows from
-- before commits were numbered have number 0.
select asked.place
from unnest($1::text[], $2::bigint[]) with ordinality asked (key, sequence, place)
cross join lateral (
    select commit_partition, commit from ledger where key = asked.key and sequence = asked.sequence offset 0
) l
left join unnest($3::integer[], $4::bigint[]) as until (partition, commit) on until.partition = l.commit_partition
where l.commit <= coalesce(until.commit, 0)
