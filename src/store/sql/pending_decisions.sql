-- Decisions after $5 that wait for a fold of this build and can have it: their number is the next of its key.
-- Each belongs to the partition that holds the key, else to that of the record it answers.
select id, key, partition
from (
    select d.id, d.key, coalesce(h.partition, case when d.topic = $3 then d.partition end, 0) as partition
    from decision_outcomes o
    join event_decisions d on d.id = o.decision_id
    left join held_keys h on h.view = o.view and h.build = o.build and h.key = d.key
    where o.view = $1 and o.build = $2 and o.taken_at is null and o.refused is null
      and o.decision_id > $5
      and (h.key is null or d.sequence <= h.missing_from)
) pending
where partition = any ($4::integer[])
order by id
limit $6
