-- What a comparison found of a key: the last look counts. $5: most keys that are kept, those that come first.
with there as (select count(*) as keys from operation_differences where operation_id = $1)
insert into operation_differences (operation_id, key, found, columns)
select $1, u.key, u.found, u.columns::jsonb
from unnest($2::text[], $3::text[], $4::text[]) with ordinality as u (key, found, columns, place), there
where there.keys + u.place <= $5
on conflict (operation_id, key) do update set found = excluded.found, columns = excluded.columns
