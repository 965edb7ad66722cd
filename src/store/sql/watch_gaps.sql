-- Notes where the log ends for gaps seen for the first time. Rows that a batch is changing come next time.
update held_keys h
set watched_ends = $3
from (
    select key from held_keys
    where view = $1 and build = $2 and reason = 'gap' and watched_ends is null
    for update skip locked
) fresh
where h.view = $1 and h.build = $2 and h.key = fresh.key
