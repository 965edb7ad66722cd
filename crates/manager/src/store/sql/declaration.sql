select name, topic, format, columns, event_time, of_keys, declared_by, version, created_at, updated_at
from stream_sources
where lower(name) = lower($1)
