delete from parked_events where view = $1 and build = $2
