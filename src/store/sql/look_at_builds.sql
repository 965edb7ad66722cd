-- Every build of a view, as its steward has to see it.
select b.build, b.active, b.loading_since is not null, coalesce(b.kept_until > now(), false), o.phase,
       not b.active and coalesce(b.kept_until <= now(), exists (
           select from operations made where made.view = b.view and made.kind = 'rebuild' and made.to_build = b.build
       )) and not exists (
           select from operations busy
           where busy.view = b.view and busy.state = 'running' and (busy.to_build = b.build or busy.from_build = b.build)
       )
from view_builds b
left join operations o on o.view = b.view and o.state = 'running' and o.to_build = b.build
where b.view = $1
order by b.build
