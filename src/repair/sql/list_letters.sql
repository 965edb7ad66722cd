-- Dead letters of the active build, the newest first. Null parameters do not filter.
select id, view, reason, error, key, sequence, topic, partition, "offset", record_timestamp, created_at,
       octet_length(payload) as payload_bytes, status, refused_because, decision_id
from dead_letters_view
where view = $1
  and ($2::text[] is null or status = any ($2))
  and ($3::text[] is null or reason = any ($3))
  and ($4::text is null or key = $4)
  and ($5::bigint is null or created_at <= now() - make_interval(secs => $5))
  and ($6::bigint is null or created_at > now() - make_interval(secs => $6))
  and ($7::bigint[] is null or id = any ($7))
  and ($8::bigint is null or id < $8)
  and ($10::text is null or topic = $10)
order by id desc
limit $9
