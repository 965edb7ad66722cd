insert into commits (partition, commit, keys, sequences) values ($1, $2, $3, $4)
