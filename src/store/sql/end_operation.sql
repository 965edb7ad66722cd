update operations
set state       = $2,
    error       = $3,
    phase       = case when $2 = 'done' then 'done' else phase end,
    phases      = case when $2 = 'done' then phases || jsonb_build_object('phase', 'done', 'at', now()) else phases end,
    finished_at = now(),
    updated_at  = now()
where id = $1 and state = 'running'
