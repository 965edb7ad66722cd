-- A definition that is gone from its engine, unless somebody has written it since it was read. Its topic is noted if it stays.
with gone as (
    delete from stream_definitions
    where id = $1::text::uuid and change = $2 and intent = 'deleted'
    returning id, name, output_topic, attempt, delete_topic
), left_over as (
    insert into stream_leftovers (topic, name, deleted_by)
    select g.output_topic, g.name,
           coalesce((select e.actor from stream_events e
                     where e.definition_id = g.id and e.what = 'delete_wanted' order by e.id desc limit 1), '')
    from gone g
    where g.attempt > 0 and not g.delete_topic
    on conflict (topic) do nothing
), told as (
    insert into stream_events (definition_id, name, what, detail)
    select id, name, 'deleted', case when attempt > 0 and not delete_topic then 'its topic ' || output_topic || ' stays' end
    from gone
)
select count(*) from gone
