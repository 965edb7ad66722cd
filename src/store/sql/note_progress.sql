-- How far it is, and what was asked of it meanwhile; and whether its view is paused.
update operations o
set records_done = $2, records_total = coalesce($3, records_total), updated_at = now()
where id = $1
returning asked, exists (select from view_pauses p where p.view = o.view and p.resumed_at is null)
