select sequence, commit_partition, commit_number from ledger where key = $1
