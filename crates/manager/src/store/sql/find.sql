select replace(id::text, '-', ''), name, first_name, engine, version, revision, sql_script, owner, intent, position, attempt,
       deployed_revision, previous_revision, failed_revision, fresh_revision, changes, job_id, restore_path, restore_savepoint,
       restore_revision, savepoints, call, tries, discard_state, delete_topic, restarts, failures, retry_at, deployed_at, observed,
       engine_state, observed_at, drift, last_error, created_at, updated_at, change,
       restore_others, cluster, called_at, keeps_at
from stream_definitions
where ($1::text is null or id = $1::text::uuid)
  and ($2::text is null or engine = $2)
  and ($3::text is null or owner = $3)
  and ($4::text is null or intent = $4)
  and ($5::text is null or observed = $5)
  and ($6::text is null or position(lower($6) in lower(name)) > 0)
  and ($7::timestamptz is null or (created_at, id) < ($7, $8::text::uuid))
order by created_at desc, id desc
limit $9
