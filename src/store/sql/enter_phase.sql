update operations
set phase      = $2,
    phases     = phases || jsonb_build_object('phase', $2::text, 'at', now()),
    updated_at = now()
where id = $1 and state = 'running' and phase <> $2
