-- Decisions after $5 that wait for a fold and can have it: their number is the next of its key.
-- Each belongs to the partition that holds the key, else to that of the record it answers.
select id, key, partition
from (
    select d.id, d.key, coalesce(h.partition, case when d.topic = $3 then d.partition end, 0) as partition
    from event_decisions d
    left join held_keys h on h.view = d.view and h.build = $2 and h.key = d.key
    where d.view = $1 and d.key is not null and d.taken_at is null and d.refused is null
      and d.id > $5
      and (h.key is null or d.sequence <= h.missing_from)
) pending
where partition = any ($4::integer[])
order by id
limit $6
