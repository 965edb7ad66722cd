select max(wanted_at) from stream_definitions
