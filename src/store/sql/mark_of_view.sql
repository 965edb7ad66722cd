-- What readers read of a view, and a mark that is another one once anything about its rows is: everything that writes rows writes
-- the build's progress in the same transaction (`store/fence.rs`, `store/standstill.rs`, loads), which gives that row another
-- xmin. Written for other reasons, too: then the same rows are read once more.
select b.build, b.loading_since is not null as loading,
       b.build || ':' || md5(coalesce(
           (select string_agg(p.topic || ' ' || p.partition || ' ' || p.commits || ' ' || p.xmin::text, ',' order by p.topic, p.partition)
            from projection_progress p
            where p.view = b.view and p.build = b.build),
           '')) as mark
from view_builds b
where b.view = $1 and b.active
