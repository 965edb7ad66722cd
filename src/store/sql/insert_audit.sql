insert into audit_log (at, principal, method, route, target, status, code, trace_id, address, calls)
select *
from unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::text[], $8::text[],
            $9::text[], $10::integer[])
