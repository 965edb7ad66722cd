-- What was decided about each dead letter.

create index event_decisions_refused on event_decisions (view, topic, partition, "offset")
    where topic is not null and refused is not null;

-- The dead letters of the active builds with what was decided about them: open, deciding (decided, not folded yet),
-- skipped, replaced, redriven, refused (no build could fold with the decision). A decision answers a letter by its
-- position, or by covering its number. Decisions of one key do not overlap, so the one that begins last is the one.
create view dead_letters_view as
    select d.id, d.view, d.build, d.topic, d.partition, d."offset", d.record_timestamp, d.reason, d.error, d.key,
           d.sequence, d.record_key, d.payload, d.headers, d.created_at, d.published_at, e.id as decision_id,
           case
               when e.id is null then 'open'
               when e.refused is not null then 'refused'
               when e.key is not null and e.taken_at is null then 'deciding'
               when e.action = 'skip' then 'skipped'
               when e.action = 'replace' then 'replaced'
               else 'redriven'
           end as status,
           e.refused as refused_because
    from dead_letters d
    join view_builds b on b.view = d.view and b.build = d.build and b.active
    left join lateral (
        select found.*
        from ((select 1 as rank, id, action, key, sequence_to, taken_at, refused
               from event_decisions
               where view = d.view and topic = d.topic and partition = d.partition and "offset" = d."offset"
                 and topic is not null and refused is null)
              union all
              (select 2, id, action, key, sequence_to, taken_at, refused
               from event_decisions
               where view = d.view and key = d.key and sequence <= d.sequence and refused is null
               order by sequence desc
               limit 1)
              union all
              (select 3, id, action, key, sequence_to, taken_at, refused
               from event_decisions
               where view = d.view and topic = d.topic and partition = d.partition and "offset" = d."offset"
                 and topic is not null and refused is not null
               order by id desc
               limit 1)) found
        where found.rank <> 2 or found.sequence_to >= d.sequence
        order by found.rank
        limit 1) e on true;
