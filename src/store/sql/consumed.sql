select coalesce(sum(p.consumed), 0)::bigint
from projection_progress p
join view_builds b on b.view = p.view and b.build = p.build
where p.view = $1 and p.build = $2 and b.loading_since is null
