with definition as (
    insert into stream_definitions (id, name, first_name, sql_script, stream_name, output_topic, engine, owner)
    values ($1::text::uuid, $2, $2, $3, $4, $5, $6, $7)
    returning id
), revision as (
    insert into stream_revisions (definition_id, revision, sql_script, author)
    select id, 1, $3, $8 from definition
)
insert into stream_events (definition_id, name, what, actor)
select id, $2, 'created', $8 from definition
