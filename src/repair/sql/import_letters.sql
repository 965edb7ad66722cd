-- Letters of a DLQ topic that the table does not have yet. They are on the topic already.
insert into dead_letters (view, build, topic, partition, "offset", record_timestamp, reason, error, key, sequence,
                          record_key, payload, headers, published_at)
select $1, b.build, u.*, now()
from unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::bigint[],
            $10::bytea[], $11::bytea[], $12::bytea[]) as u
join view_builds b on b.view = $1 and b.active
on conflict (view, build, topic, partition, "offset") do nothing
returning id
