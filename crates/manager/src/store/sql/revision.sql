select statement, sources, changes
from stream_revisions
where definition_id = $1::text::uuid and revision = $2
