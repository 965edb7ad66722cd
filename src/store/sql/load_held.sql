select h.key, h.parked_count, h.parked_bytes, h.missing_to + 1, h.refused, h.missing_from
from held_keys h
where h.view = $1 and h.build = $2 and h.key = any ($3::text[])
