-- JSON in the framing of a schema registry is a format of its own.
alter table stream_sources drop constraint stream_sources_format_check;
alter table stream_sources
    add constraint stream_sources_format_check check (format in ('json', 'json_schema', 'avro'));
