select sequence, commit_partition, commit from ledger where key = $1
