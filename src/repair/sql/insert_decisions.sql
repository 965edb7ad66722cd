-- A decision about an event waits for every build. $9 and $10 are the value and headers of a replacement; a redrive takes
-- those of the letter.
with decided as (
    insert into event_decisions (view, action, reason, actor, key, sequence, sequence_to, topic, partition, "offset",
                                 record_timestamp, payload, headers, on_behalf_of)
    select $1, $2, $3, $4, u.key, u.sequence, u.sequence_to, d.topic, d.partition, d."offset", d.record_timestamp,
           case $2::text when 'replace' then $9::bytea when 'redrive' then d.payload end,
           case $2::text when 'replace' then $10::bytea when 'redrive' then d.headers end,
           $11
    from unnest($5::text[], $6::bigint[], $7::bigint[], $8::bigint[]) as u (key, sequence, sequence_to, letter)
    left join dead_letters d on d.id = u.letter
    returning id, view, key
), awaited as (
    insert into decision_outcomes (decision_id, view, build)
    select d.id, d.view, b.build from decided d join view_builds b on b.view = d.view where d.key is not null
)
select id from decided
