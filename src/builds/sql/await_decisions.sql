insert into decision_outcomes (decision_id, view, build)
select id, view, $2 from event_decisions where view = $1 and key is not null
