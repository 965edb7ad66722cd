insert into parked_events (view, build, topic, key, sequence, event_id, partition, "offset", record_timestamp, payload, headers)
select $1, $2, $3, u.*
from unnest($4::text[], $5::bigint[], $6::text[], $7::integer[], $8::bigint[], $9::bigint[], $10::bytea[], $11::bytea[]) as u
