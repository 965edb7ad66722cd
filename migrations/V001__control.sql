-- Control tables shared by every view: how far each build is, what is held, what was refused.
-- `view` is the registry name of a view, `build` the number of one materialisation of it.

create table view_builds (
    view       text        not null,
    build      integer     not null,
    active     boolean     not null default true,
    created_at timestamptz not null default now(),
    primary key (view, build)
);
create unique index view_builds_one_active on view_builds (view) where active;

-- One row per consumed partition. `next_offset` is exclusive and moves only inside the transaction that
-- writes the rows (the fence: next_offset = expected and owner_epoch = mine).
-- The counters obey, at every commit: consumed = applied + duplicate + late + conflict + parked + dead_lettered.
create table projection_progress (
    view                  text        not null,
    build                 integer     not null,
    topic                 text        not null,
    topic_id              text,
    partition             integer     not null,
    next_offset           bigint      not null,
    owner_epoch           bigint      not null default 0,
    owner                 text,
    anchor_offset         bigint,
    anchor_crc            bigint,
    anchor_timestamp      bigint,
    last_record_timestamp timestamptz,
    consumed              bigint      not null default 0,
    applied               bigint      not null default 0,
    duplicate             bigint      not null default 0,
    late                  bigint      not null default 0,
    conflict              bigint      not null default 0,
    parked                bigint      not null default 0,
    dead_lettered         bigint      not null default 0,
    updated_at            timestamptz not null default now(),
    primary key (view, build, topic, partition),
    foreign key (view, build) references view_builds (view, build)
);
-- Rewritten by every batch: room for HOT updates on each page.
alter table projection_progress set (fillfactor = 50);

-- A key whose next event is missing. `missing_from` is the sequence it waits for; `missing_to` the last one
-- before the first parked event (null: nothing parked behind it yet).
create table held_keys (
    view         text        not null,
    build        integer     not null,
    key          text        collate "C" not null,
    reason       text        not null,
    missing_from bigint      not null,
    missing_to   bigint,
    parked_count integer     not null,
    parked_bytes bigint      not null,
    -- sequences ahead that were refused: the key cannot pass them until they are repaired
    refused      bigint[]    not null default '{}',
    topic        text        not null,
    partition    integer     not null,
    since        timestamptz not null default now(),
    primary key (view, build, key)
);

-- Events that arrived ahead of a gap, whole, as consumed. Drained in sequence order.
create table parked_events (
    view             text        not null,
    build            integer     not null,
    key              text        collate "C" not null,
    sequence         bigint      not null,
    event_id         text        not null,
    topic            text        not null,
    partition        integer     not null,
    "offset"         bigint      not null,
    record_timestamp bigint,
    payload          bytea       not null,
    headers          bytea       not null,
    parked_at        timestamptz not null default now(),
    primary key (view, build, key, sequence)
);

-- Records that could not become an event, byte for byte; also the outbox of the DLQ topic (`published_at`).
create table dead_letters (
    id               bigint      generated always as identity primary key,
    view             text        not null,
    build            integer     not null,
    topic            text        not null,
    partition        integer     not null,
    "offset"         bigint      not null,
    record_timestamp bigint,
    reason           text        not null,
    error            text        not null,
    key              text        collate "C",
    sequence         bigint,
    record_key       bytea,
    payload          bytea,
    headers          bytea       not null,
    created_at       timestamptz not null default now(),
    published_at     timestamptz,
    unique (view, build, topic, partition, "offset")
);
create index dead_letters_unpublished on dead_letters (view, id) where published_at is null;
create index dead_letters_of_key on dead_letters (view, build, key, sequence) where key is not null;
