insert into relay_positions as p (view, topic, partition, next_offset)
select $1, $2, u.* from unnest($3::integer[], $4::bigint[]) as u
on conflict (view, topic, partition) do update
set next_offset = excluded.next_offset
where p.next_offset <> excluded.next_offset
