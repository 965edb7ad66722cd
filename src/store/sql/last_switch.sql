-- The last time that readers were taken from build $2 to another one, whether the build is still there, and whether it kept a
-- ledger.
select s.id, s.from_build, s.to_build, s.from_commits, s.to_commits,
       b.build is not null, coalesce(b.rules ->> 'history' <> 'off', true)
from build_switches s
left join view_builds b on b.view = s.view and b.build = s.from_build
where s.view = $1 and s.from_build = $2
order by s.id desc
limit 1
