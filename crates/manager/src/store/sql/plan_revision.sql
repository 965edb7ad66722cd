update stream_revisions
set statement = $3, sources = $4, columns = $5, changes = $6
where definition_id = $1::text::uuid and revision = $2
