-- Nothing is inserted where another operation of the view is running.
insert into operations (kind, view, phase, request, reason, actor, from_build, to_build, phases, on_behalf_of)
values ($1, $2, 'preflight', $3, $4, $5, $6, $7, jsonb_build_array(jsonb_build_object('phase', 'preflight', 'at', now())),
        $8)
on conflict (view) where state = 'running' do nothing
returning id
