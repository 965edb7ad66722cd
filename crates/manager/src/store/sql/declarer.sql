select declared_by from stream_sources where lower(name) = lower($1)
