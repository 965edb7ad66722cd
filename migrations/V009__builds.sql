-- Builds get an identity: what became of a decision is kept for each build, and so is the ledger, which is the engine's.

-- What a build made of a decision. There is a row for each decision about an event and each build, from the moment that
-- both exist: without `taken_at` and `refused` the build has yet to fold with it.
create table decision_outcomes (
    decision_id bigint      not null references event_decisions (id),
    view        text        not null,
    build       integer     not null,
    -- when the build first folded with it
    taken_at    timestamptz,
    -- why this build cannot fold with it
    refused     text,
    primary key (decision_id, build),
    check (taken_at is null or refused is null)
);
create index decision_outcomes_pending on decision_outcomes (view, build, decision_id)
    where taken_at is null and refused is null;

insert into decision_outcomes (decision_id, view, build, taken_at, refused)
select e.id, e.view, b.build, case when b.active then e.taken_at end, case when b.active then e.refused end
from event_decisions e
join view_builds b on b.view = e.view
where e.key is not null;

-- The active build refused it: it counts as never made, and another decision may take its place. Set by the active build's
-- batch, together with its outcome, and never taken back: two decisions about one number cannot both stand.
-- A column, because a unique index sees no other table.
alter table event_decisions add column revoked boolean not null default false;
update event_decisions set revoked = true where refused is not null;

drop index event_decisions_of_key, event_decisions_of_record, event_decisions_pending, event_decisions_refused;
create unique index event_decisions_of_key on event_decisions (view, key, sequence)
    where key is not null and not revoked;
create unique index event_decisions_of_record on event_decisions (view, topic, partition, "offset")
    where topic is not null and not revoked;
-- For builds that look for all of a key: what one build refused, another tries by itself.
create index event_decisions_by_key on event_decisions (view, key, sequence) where key is not null;
create index event_decisions_revoked on event_decisions (view, topic, partition, "offset")
    where topic is not null and revoked;

-- As in V005, with the outcome of the active build.
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
        where found.rank <> 2 or found.sequence_to >= d.sequence
        order by found.rank
        limit 1) e on true
    left join decision_outcomes o on o.decision_id = e.id and o.build = d.build;

alter table event_decisions drop column taken_at, drop column refused;

-- Only the active build publishes its letters.
drop index dead_letters_unpublished;
create index dead_letters_unpublished on dead_letters (view, build, id) where published_at is null;

-- Commits of each partition, by number: raised by one with the fence. An offset does not number them, because an event
-- that was parked is committed later, under its old offset, and a key can heal without a record.
alter table projection_progress add column commits bigint not null default 0;

-- The ledger of a build is written by the engine, and says with which commit each row came. Rows from before have none:
-- the defaults stand for them, without a rewrite of the table, and are then taken off.
alter table orders_1.order_events rename to ledger;
alter table orders_1.ledger rename column order_id to key;
-- Not there while a bulk load is under way or was cut short: it is put on again, by its new name, when that ends.
do $$ begin
    if exists (select from pg_constraint where conname = 'order_events_pkey' and conrelid = 'orders_1.ledger'::regclass) then
        alter table orders_1.ledger rename constraint order_events_pkey to ledger_pkey;
    end if;
end $$;
alter table orders_1.ledger add column commit_partition integer not null default -1,
                            add column commit_number bigint not null default 0;
alter table orders_1.ledger alter column commit_partition drop default, alter column commit_number drop default;
