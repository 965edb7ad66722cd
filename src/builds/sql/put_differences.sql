-- What a comparison found of a key: the last look counts.
insert into operation_differences (operation_id, key, found, columns)
select $1, u.key, u.found, u.columns::jsonb
from unnest($2::text[], $3::text[], $4::text[]) as u (key, found, columns)
on conflict (operation_id, key) do update set found = excluded.found, columns = excluded.columns
