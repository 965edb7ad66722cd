-- The latest 500 of each definition are kept.
delete from stream_events
where definition_id = $1::text::uuid
  and id < (select min(id)
            from (select id from stream_events where definition_id = $1::text::uuid order by id desc limit 500) latest)
