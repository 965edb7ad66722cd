-- Definitions that are not being deleted: of one owner, and of all.
select count(*) filter (where owner = $1), count(*) from stream_definitions where intent <> 'deleted'
