select d.output_topic, r.columns, r.changes
from stream_definitions d
left join stream_revisions r on r.definition_id = d.id and r.revision = coalesce(d.deployed_revision, d.revision)
where d.output_topic = $1
