select count(*) filter (where owner = $3), count(*)
from stream_queries
where instance <> $1
  and told_at > now() - make_interval(secs => $2)
