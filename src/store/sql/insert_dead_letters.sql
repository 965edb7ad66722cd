-- A position is refused once, whatever is replayed.
insert into dead_letters (view, build, topic, partition, "offset", record_timestamp, reason, error, key, sequence,
                          event_id, record_key, payload, headers)
select $1, $2, $3, u.*
from unnest($4::integer[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::text[],
            $12::bytea[], $13::bytea[], $14::bytea[]) as u
on conflict (view, build, topic, partition, "offset") do nothing
