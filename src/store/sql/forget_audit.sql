delete from audit_log
where id in (select id from audit_log where at < now() - make_interval(days => $1::integer) order by at limit $2)
