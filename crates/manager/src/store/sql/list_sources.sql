select name, topic, format, columns, event_time from stream_sources order by lower(name)
