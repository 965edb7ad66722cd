insert into stream_sources (name, topic, format, columns, event_time, declared_by)
values ($1, $2, $3, $4, $5, $6)
on conflict ((lower(name))) do update
set name = excluded.name, topic = excluded.topic, format = excluded.format, columns = excluded.columns,
    event_time = excluded.event_time, declared_by = excluded.declared_by, updated_at = now(), version = default
