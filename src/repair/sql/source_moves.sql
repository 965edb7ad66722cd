select id, from_cluster, from_topic, from_topic_id, to_topic, reason, actor, decided_at
from source_moves where view = $1 order by id
