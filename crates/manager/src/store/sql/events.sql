select id, at, what, actor, detail
from stream_events
where definition_id = $1::text::uuid and ($2::bigint is null or id < $2)
order by id desc
limit $3
