-- Letters of this build whose record the active build has published.
update dead_letters d
set published_at = shown.published_at
from dead_letters shown
join view_builds b on b.view = shown.view and b.build = shown.build and b.active
where d.view = $1 and d.build = $2 and d.published_at is null
  and shown.view = d.view and shown.topic = d.topic and shown.partition = d.partition and shown."offset" = d."offset"
  and shown.published_at is not null
