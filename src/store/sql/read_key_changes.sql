select sequence, event_id, event_type, effect
from ledger
where key = $1 and sequence > $2
order by sequence
limit $3
