-- Whoever settles the rules of a build takes turns with others who do, and with takeovers of its partitions.
select projection_version, rules, active, loading_since is not null as loading
from view_builds
where view = $1 and build = $2
for update
