delete from ledger where key = $1 and sequence = any ($2::bigint[])
