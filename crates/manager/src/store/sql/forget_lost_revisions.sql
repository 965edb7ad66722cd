-- Texts of definitions that are gone, once what happened to them is forgotten too; a part of them.
delete from stream_revisions
where (definition_id, revision) in (
    select r.definition_id, r.revision
    from stream_revisions r
    where not exists (select from stream_definitions d where d.id = r.definition_id)
      and not exists (select from stream_events e where e.definition_id = r.definition_id)
    limit 5000)
