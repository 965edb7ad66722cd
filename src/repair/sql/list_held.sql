-- Held keys of the active build, those that have waited longest first. Null parameters do not filter. A hold does not remember
-- all refused numbers: with $10 the letters are asked about those that are missing before the first parked event, too.
select h.key, h.reason, h.missing_from, h.missing_to, h.parked_count, h.parked_bytes, h.since, h.proven_at,
       cardinality(h.refused) as refused_count,
       exists (select from event_decisions e
               where e.view = h.view and e.key = h.key and not e.revoked
                 and e.sequence <= h.missing_from and e.sequence_to >= h.missing_from) as decided
from held_keys h
where h.view = $1
  and h.build = (select build from view_builds where view = $1 and active)
  and ($2::text[] is null or h.reason = any ($2))
  and ($3::text is null or h.key = $3)
  and ($4::bigint is null or h.since <= now() - make_interval(secs => $4))
  and ($5::bigint is null or h.since > now() - make_interval(secs => $5))
  and ($6::timestamptz is null or (h.since, h.key) > ($6, $7::text))
  and ($9::boolean is null or (h.proven_at is not null) = $9)
  and (not $10::boolean
       or h.refused = '{}'
          and not exists (select from dead_letters d
                          where d.view = h.view and d.build = h.build and d.key = h.key
                            and d.sequence between h.missing_from and coalesce(h.missing_to, h.missing_from)))
order by h.since, h.key
limit $8
