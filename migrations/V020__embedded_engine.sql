-- The engine in this process runs definitions too, and says where it keeps the state of what is deployed when it is deployed.
alter table stream_definitions
    drop constraint stream_definitions_engine_check,
    add constraint stream_definitions_engine_check check (engine in ('flink', 'ksqldb', 'embedded')),
    -- {"path", "savepoint"}, of the deployed revision
    add column keeps_at jsonb;
