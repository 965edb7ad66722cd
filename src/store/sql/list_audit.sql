-- Null parameters do not filter.
select id, at, principal, method, route, target, status, code, trace_id, address, calls
from audit_log
where ($1::text is null or principal = $1)
  and ($2::text is null or route = $2)
  and ($3::text is null or $3 = case when status < 400 then 'done'
                                     when status in (401, 403, 429) then 'refused'
                                     else 'failed' end)
  and ($4::timestamptz is null or at >= $4)
  and ($5::timestamptz is null or at < $5)
  and ($6::bigint is null or id < $6)
order by id desc
limit $7
