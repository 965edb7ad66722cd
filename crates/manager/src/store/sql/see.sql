-- What was seen of a definition, unless somebody has written it since it was read.
update stream_definitions
set observed = $3, engine_state = $4, observed_at = now(), drift = $5, job_id = $6, last_error = $7, restarts = $8,
    running_as = $9,
    updated_at = case when (observed, engine_state, drift) is distinct from ($3, $4, $5) then now() else updated_at end,
    change = change + 1
where id = $1::text::uuid and change = $2
