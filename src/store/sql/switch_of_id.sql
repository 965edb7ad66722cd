select s.id, s.from_build, s.to_build, s.from_commits, s.to_commits,
       exists (select from view_builds b where b.view = s.view and b.build = s.from_build)
from build_switches s
where s.view = $1 and s.id = $2
