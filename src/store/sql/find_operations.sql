-- Operations, the latest first: of a view ($1), in a state ($2), of an id ($3), before an id ($4); null for any.
select id, kind, view, state, phase, request, reason, actor, from_build, to_build, records_done, records_total, comparison,
       error, asked, phases, started_at, updated_at, finished_at, on_behalf_of, asked_by
from operations
where ($1::text is null or view = $1)
  and ($2::text is null or state = $2)
  and ($3::bigint is null or id = $3)
  and ($4::bigint is null or id < $4)
order by id desc
limit $5
