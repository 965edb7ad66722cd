select key, id, action, sequence, sequence_to, taken_at is not null
from event_decisions
where view = $1 and key = any ($2::text[]) and refused is null
order by key, sequence
