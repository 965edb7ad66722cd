select id, instance, engine, owner, sql_script, started_at, ends_at, is_read, rows, bytes, left_out, tables
from stream_queries
where instance <> $1
  and told_at > now() - make_interval(secs => $2)
order by started_at, id
