-- Where somebody has emptied the tables and has all of it applied again, numbers come again, too.
insert into commits (partition, commit, keys, sequences) values ($1, $2, $3, $4)
on conflict (partition, commit) do update set keys = excluded.keys, sequences = excluded.sequences
