insert into stream_queries (instance, id, engine, owner, sql_script, started_at, ends_at, is_read, rows, bytes,
                            left_out, tables)
select $1, *
from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::boolean[], $9::bigint[],
            $10::bigint[], $11::jsonb[], $12::jsonb[])
on conflict (id) do update
set is_read = excluded.is_read, rows = excluded.rows, bytes = excluded.bytes, left_out = excluded.left_out,
    tables = excluded.tables, told_at = now()
