-- Decisions that build $2 has yet to fold with, that build $3 has folded with, and whose number is the next of its key in build $2:
-- where the key is held, else behind its row, whose number is put in the place of the null, else where keys begin. One about
-- a number that the key has left behind is passed over by the keeper; one that is further ahead has no turn, as the log
-- holds no more of the key.
select d.id
from decision_outcomes o
join decision_outcomes other on other.decision_id = o.decision_id and other.build = $3 and other.taken_at is not null
join event_decisions d on d.id = o.decision_id
join view_builds b on b.view = o.view and b.build = o.build
left join held_keys h on h.view = o.view and h.build = o.build and h.key = d.key
where o.view = $1 and o.build = $2 and o.taken_at is null and o.refused is null
  and coalesce(h.missing_from, null::bigint + 1, (b.rules ->> 'first_sequence')::bigint, d.sequence)
      between d.sequence and d.sequence_to
order by d.id
limit 5
