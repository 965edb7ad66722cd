select s.id, s.from_build, s.to_build, s.from_commits, s.to_commits,
       b.build is not null, coalesce(b.rules ->> 'history' <> 'off', true)
from build_switches s
left join view_builds b on b.view = s.view and b.build = s.from_build
where s.view = $1 and s.id = $2
