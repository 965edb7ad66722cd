-- $3: why it goes on otherwise than usual, if so.
update operations
set phase      = $2,
    phases     = phases || jsonb_strip_nulls(jsonb_build_object('phase', $2::text, 'at', now(), 'detail', $3::text)),
    updated_at = now()
where id = $1 and state = 'running' and phase <> $2
