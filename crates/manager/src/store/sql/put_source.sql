insert into stream_sources (name, topic, format, columns, event_time, declared_by, of_keys)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict ((lower(name))) do update
set name = excluded.name, topic = excluded.topic, format = excluded.format, columns = excluded.columns,
    event_time = excluded.event_time, declared_by = excluded.declared_by, of_keys = excluded.of_keys, updated_at = now(),
    version = default
