-- Notes where the log ends beside gaps that were there before that was asked. Rows that a batch is changing come next time.
update held_keys h
set watched_ends = $3
from (
    select g.key
    from unnest($4::text[], $5::bigint[]) as seen (key, missing_from)
    join held_keys g on g.view = $1 and g.build = $2 and g.key = seen.key and g.missing_from = seen.missing_from
    where g.reason = 'gap' and g.watched_ends is null
    for update of g skip locked
) fresh
where h.view = $1 and h.build = $2 and h.key = fresh.key
