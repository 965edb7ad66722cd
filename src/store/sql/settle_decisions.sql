-- What a batch made of decisions: folded with them, or found that it cannot.
update event_decisions d
set taken_at = case when u.refused is null then coalesce(d.taken_at, now()) end,
    refused  = u.refused
from unnest($1::bigint[], $2::text[]) as u (id, refused)
where d.id = u.id
