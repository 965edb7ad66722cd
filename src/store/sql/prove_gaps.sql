-- Gaps whose log was consumed, in every partition, past the ends noted: what is missing is not there.
update held_keys h
set proven_at = now()
from (
    select g.key from held_keys g
    where g.view = $1 and g.build = $2 and g.reason = 'gap' and g.proven_at is null and g.watched_ends is not null
      and not exists (
          select
          from unnest(g.watched_ends) with ordinality as w (log_end, number)
          left join projection_progress p
              on p.view = g.view and p.build = g.build and p.topic = $3 and p.partition = w.number - 1
          where w.log_end > coalesce(p.next_offset, 0)
      )
    for update of g skip locked
) proven
where h.view = $1 and h.build = $2 and h.key = proven.key
returning h.key, h.missing_from
