-- How far it is, and what was asked of it meanwhile.
update operations
set records_done = $2, records_total = coalesce($3, records_total), updated_at = now()
where id = $1
returning asked
