select name, topic, format, columns, event_time, of_keys from stream_sources order by lower(name)
