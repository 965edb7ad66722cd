insert into stream_revisions (definition_id, revision, sql_script, author)
values ($1::text::uuid, $2, $3, $4)
