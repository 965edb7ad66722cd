-- Whether build $2 has yet to fold with a decision that it can have by now, and that build $3 has folded with.
select exists (
    select from decision_outcomes o
    join decision_outcomes other on other.decision_id = o.decision_id and other.build = $3 and other.taken_at is not null
    join event_decisions d on d.id = o.decision_id
    left join held_keys h on h.view = o.view and h.build = o.build and h.key = d.key
    where o.view = $1 and o.build = $2 and o.taken_at is null and o.refused is null
      and (h.key is null or d.sequence <= h.missing_from)
)
