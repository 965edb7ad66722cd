select revision, sql_script, author, created_at, statement, sources, changes
from stream_revisions
where definition_id = $1::text::uuid and ($2::integer is null or revision = $2)
order by revision desc
