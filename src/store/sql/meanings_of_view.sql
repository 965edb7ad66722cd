-- The builds of a view and by what they are made.
select projection_version, rules, build, active, loading_since is not null as loading
from view_builds
where view = $1
order by build
