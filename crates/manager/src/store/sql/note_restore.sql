-- Where a running job keeps its state, unless somebody has written the definition since it was read.
update stream_definitions
set restore_path = $3, restore_savepoint = $4, restore_others = $5, restore_revision = deployed_revision, change = change + 1
where id = $1::text::uuid and change = $2 and deployed_revision is not null
