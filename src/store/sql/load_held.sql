-- Nearly always nothing is held at all: then no key is looked for.
select h.key, h.parked_count, h.parked_bytes, h.missing_to + 1, h.refused, h.missing_from
from held_keys h
where h.view = $1 and h.build = $2 and h.key = any ($3::text[])
  and exists (select from held_keys where view = $1 and build = $2)
