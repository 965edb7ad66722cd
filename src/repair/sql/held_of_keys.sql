-- What the active build says of those of these keys that are held.
select h.key, h.missing_from, h.missing_to, (select max(number) from unnest(h.refused) as number)
from held_keys h
where h.view = $1
  and h.build = (select build from view_builds where view = $1 and active)
  and h.key = any ($2::text[])
