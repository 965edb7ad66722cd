select output_topic, stream_name, replace(id::text, '-', ''), first_name from stream_definitions
