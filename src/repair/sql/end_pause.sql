update view_pauses
set resumed_at = now(), resume_reason = $2, resumed_by = $3
where view = $1 and resumed_at is null
