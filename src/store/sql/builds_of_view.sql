-- The builds of a view, and how many records each has consumed.
select b.build, b.active, b.loading_since is not null as loading, b.projection_version, b.rules, b.created_at, b.kept_until,
       (select coalesce(sum(p.consumed), 0)::bigint
        from projection_progress p
        where p.view = b.view and p.build = b.build) as records
from view_builds b
where b.view = $1
order by b.build
