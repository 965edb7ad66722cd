select projection_version, rules, active, loading_since is not null as loading,
       (select coalesce(sum(p.consumed), 0)::bigint
        from projection_progress p
        where p.view = b.view and p.build = b.build) as consumed
from view_builds b
where view = $1 and build = $2
