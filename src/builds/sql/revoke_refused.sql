-- What this build has refused counts as never made, as if it had been the active one.
update event_decisions d
set revoked = true
from decision_outcomes o
where o.view = $1 and o.build = $2 and o.refused is not null and d.id = o.decision_id and not d.revoked
