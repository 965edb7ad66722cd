-- As list_letters, but what a bulk call needs of each.
select id, key, sequence,
       octet_length(headers)::bigint + coalesce(octet_length(record_key), 0) + coalesce(octet_length(payload), 0) as bytes
from dead_letters_view
where view = $1
  and ($2::text[] is null or status = any ($2))
  and ($3::text[] is null or reason = any ($3))
  and ($4::text is null or key = $4)
  and ($5::bigint is null or created_at <= now() - make_interval(secs => $5))
  and ($6::bigint is null or created_at > now() - make_interval(secs => $6))
  and ($7::bigint[] is null or id = any ($7))
  and ($9::text is null or topic = $9)
order by id
limit $8
