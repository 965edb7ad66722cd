-- Where somebody has emptied the tables and has it all applied again, the numbers come again, too.
insert into commits (partition, commit, keys, sequences) values ($1, $2, $3, $4)
on conflict (partition, commit) do update set keys = excluded.keys, sequences = excluded.sequences
