-- Where letters came from, of the newest $2; one more than that tells that there are more. Null parameters do not filter.
select topic, count(*) as letters, max(created_at) as newest_at, max(looked) as looked
from (select topic, created_at, count(*) over () as looked
      from (select topic, created_at
            from dead_letters_view
            where view = $1 and ($3::text[] is null or status = any ($3))
            order by id desc
            limit $2::bigint + 1) as newest) as counted
group by topic
order by letters desc, topic
limit $4
