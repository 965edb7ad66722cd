-- What happened longer ago than so many seconds, a part of it.
delete from stream_events
where id in (select id from stream_events where at < now() - make_interval(secs => $1) limit 5000)
