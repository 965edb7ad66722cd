-- The build that readers read ($1: the view), and the one that they left for it, if it is still kept.
select active.build,
       (select s.from_build
        from build_switches s
        join view_builds kept on kept.view = s.view and kept.build = s.from_build and kept.kept_until > now()
        where s.view = $1 and s.to_build = active.build
        order by s.id desc
        limit 1)
from view_builds active
where active.view = $1 and active.active
