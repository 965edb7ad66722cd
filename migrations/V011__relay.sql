-- The id of the event that was refused, where it could be read: a late copy of it is known by that.
alter table dead_letters add column event_id text collate "C";

-- A decision about a number answers the letters of that number, but none about another event that came under it when it was
-- done: a reused number, or one that the redriven event has taken.
create or replace view dead_letters_view as
    select d.id, d.view, d.build, d.topic, d.partition, d."offset", d.record_timestamp, d.reason, d.error, d.key,
           d.sequence, d.record_key, d.payload, d.headers, d.created_at, d.published_at, e.id as decision_id,
           case
               when e.id is null then 'open'
               when o.refused is not null then 'refused'
               when e.key is not null and o.taken_at is null then 'deciding'
               when e.action = 'skip' then 'skipped'
               when e.action = 'replace' then 'replaced'
               else 'redriven'
           end as status,
           o.refused as refused_because
    from dead_letters d
    join view_builds b on b.view = d.view and b.build = d.build and b.active
    left join lateral (
        select found.*
        from ((select 1 as rank, id, action, key, sequence_to
               from event_decisions
               where view = d.view and topic = d.topic and partition = d.partition and "offset" = d."offset"
                 and topic is not null and not revoked)
              union all
              (select 2, id, action, key, sequence_to
               from event_decisions
               where view = d.view and key = d.key and sequence <= d.sequence and not revoked
               order by sequence desc
               limit 1)
              union all
              (select 3, id, action, key, sequence_to
               from event_decisions
               where view = d.view and topic = d.topic and partition = d.partition and "offset" = d."offset"
                 and topic is not null and revoked
               order by id desc
               limit 1)) found
        where found.rank <> 2
           or found.sequence_to >= d.sequence and d.reason <> 'sequence_reused'
              and (d.reason <> 'sequence_conflict' or found.action <> 'redrive')
        order by found.rank
        limit 1) e on true
    left join decision_outcomes o on o.decision_id = e.id and o.build = d.build;
