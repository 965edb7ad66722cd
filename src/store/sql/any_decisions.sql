select exists (select from event_decisions where view = $1 and key is not null)
