-- Keys with how many rows each has, in the order of their bytes.
select key, count(*) from ledger where key > $1 group by key order by key limit $2
