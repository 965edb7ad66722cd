select revision, sql_script, author, created_at
from stream_revisions
where definition_id = $1::text::uuid
  and ($2::integer is null or revision < $2)
  and ($3::integer[] is null or revision = any ($3))
order by revision desc
limit $4
