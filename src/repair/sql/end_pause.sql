update view_pauses
set resumed_at = now(), resume_reason = $2, resumed_by = $3, resumed_on_behalf_of = $4
where view = $1 and resumed_at is null
