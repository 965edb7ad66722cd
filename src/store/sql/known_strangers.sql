-- Of late events that are none of their keys' events, by place, those that are known all the same: copies of what was
-- refused, by id, or byte for byte where no id could be read; copies of what an operator replaced, refused by whichever build
-- and under whichever number; numbers that were skipped, whose event nobody knows; and, where $7 says that the ledger can be
-- asked, numbers that are not in it: it was not kept then.
select u.place
from unnest($3::text[], $4::bigint[], $5::text[], $6::bytea[], $7::boolean[]) with ordinality
     as u (key, sequence, event_id, payload, ask, place)
-- Two questions, each by its part of the index: there may be any number of letters under one number.
where exists (
          select 1 from dead_letters d
          where d.view = $1 and d.build = $2 and d.key = u.key and d.sequence = u.sequence and d.event_id = u.event_id
          union all
          select 1 from dead_letters d
          where d.view = $1 and d.build = $2 and d.key = u.key and d.sequence = u.sequence and d.event_id is null
            and d.payload = u.payload)
   or exists (
          select from event_decisions e
          left join decision_outcomes o on o.decision_id = e.id and o.build = $2
          where e.view = $1 and e.key = u.key and u.sequence between e.sequence and e.sequence_to
            and e.action = 'skip' and o.refused is null)
   or exists (
          select from event_decisions e
          join view_builds b on b.view = e.view
          join dead_letters d on d.view = b.view and d.build = b.build
               and d.topic = e.topic and d.partition = e.partition and d."offset" = e."offset"
          where e.view = $1 and e.key = u.key and u.sequence between e.sequence and e.sequence_to
            and e.action = 'replace'
            and (d.event_id = u.event_id or d.event_id is null and d.payload = u.payload))
   or u.ask and not exists (select from ledger l where l.key = u.key and l.sequence = u.sequence)
