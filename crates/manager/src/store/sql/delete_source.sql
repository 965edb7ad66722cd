delete from stream_sources where lower(name) = lower($1)
