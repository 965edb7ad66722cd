delete from held_keys h
where h.view = $1 and h.build = $2 and h.key = any ($3::text[])
  and not exists (select from parked_events p where p.view = $1 and p.build = $2 and p.key = h.key)
