-- Writes a definition as it is now, and what happened, unless somebody has written it since it was read.
with saved as (
    update stream_definitions
    set name = $3, version = $4, revision = $5, sql_script = $6, intent = $7, position = $8, attempt = $9,
        deployed_revision = $10, previous_revision = $11, failed_revision = $12, fresh_revision = $13, changes = $14,
        job_id = $15, restore_path = $16, restore_savepoint = $17, restore_revision = $18, savepoints = $19, call = $20,
        tries = $21, discard_state = $22, delete_topic = $23, restarts = $24, failures = $25, retry_at = $26,
        deployed_at = $27, observed = $28, engine_state = $29, observed_at = $30, drift = $31, last_error = $32,
        restore_others = $36, cluster = $37, called_at = $38, keeps_at = $39,
        updated_at = now(), change = change + 1,
        wanted_at = case when $33::text is null then wanted_at else now() end
    where id = $1::text::uuid and change = $2
    returning id, name
), told as (
    insert into stream_events (definition_id, name, what, actor, detail)
    select id, name, $34, $33, $35 from saved where $34::text is not null
)
select count(*) from saved
