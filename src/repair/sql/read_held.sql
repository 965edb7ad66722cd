select h.key, h.reason, h.missing_from, h.missing_to, h.parked_count, h.parked_bytes, h.since, h.proven_at,
       cardinality(h.refused) as refused_count,
       exists (select from event_decisions e
               where e.view = h.view and e.key = h.key and not e.revoked
                 and e.sequence <= h.missing_from and e.sequence_to >= h.missing_from) as decided,
       h.refused
from held_keys h
where h.view = $1 and h.build = (select build from view_builds where view = $1 and active) and h.key = $2
