-- Those of this instance that have ended, and those of instances that are gone.
delete from stream_queries
where instance = $1 and id = any ($2::text[])
   or told_at < now() - make_interval(secs => $3)
