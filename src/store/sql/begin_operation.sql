-- Nothing is inserted where another operation of the view is running.
insert into operations (kind, view, phase, request, reason, actor, from_build, to_build, phases)
values ($1, $2, 'preflight', $3, $4, $5, $6, $7, jsonb_build_array(jsonb_build_object('phase', 'preflight', 'at', now())))
on conflict (view) where state = 'running' do nothing
returning id
