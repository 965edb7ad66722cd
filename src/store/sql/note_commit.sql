insert into commits (partition, number, keys, sequences) values ($1, $2, $3, $4)
