select build, active, source_cluster, source_topic, source_topic_id, bound_at
from view_builds where view = $1 order by build
