-- Texts that are older than the latest so many, and that nothing goes back to: a part of them, as each new one makes one too many.
delete from stream_revisions
where definition_id = $1::text::uuid
  and revision in (
      select r.revision
      from stream_revisions r
      join stream_definitions d on d.id = r.definition_id
      where r.definition_id = $1::text::uuid
        and r.revision <= d.revision - $2::integer
        and (r.revision in (d.deployed_revision, d.previous_revision, d.failed_revision, d.fresh_revision, d.restore_revision,
                            (d.call ->> 'revision')::integer)) is not true
      order by r.revision
      limit 100)
