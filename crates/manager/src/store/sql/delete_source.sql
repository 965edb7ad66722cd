delete from stream_sources where lower(name) = lower($1) and ($3 or declared_by = $2)
