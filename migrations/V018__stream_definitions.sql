-- Streaming SQL that an engine (Flink, ksqlDB) runs for us: what is wanted, and how far the engine has been brought. Whoever
-- reconciles writes down each call of an engine before it is made (`call`), and what came of it afterwards.
create table stream_definitions (
    -- every name in the engine is made of it
    id                uuid        primary key,
    name              text        not null check (length(name) between 1 and 128),
    -- the text of `revision`
    sql_script        text        not null check (octet_length(sql_script) <= 262144),
    -- the engine's id of what runs, or ran last
    job_id            text,
    stream_name       text        not null unique,
    output_topic      text        not null unique,
    is_active         boolean     not null generated always as (observed in ('starting', 'running', 'degraded', 'restarting')) stored,
    created_at        timestamptz not null default now(),

    -- the name that it was given at first: its names in the engine are made of it
    first_name        text        not null check (length(first_name) between 1 and 128),
    engine            text        not null check (engine in ('flink', 'ksqldb')),
    owner             text        not null check (length(owner) between 1 and 256),
    -- counted up by each change of name, text or intent
    version           integer     not null default 1,
    revision          integer     not null default 1,
    intent            text        not null default 'draft' check (intent in ('draft', 'running', 'paused', 'stopped', 'deleted')),
    -- when people have asked for something last
    wanted_at         timestamptz not null default now(),
    -- the next stop throws the state away; the deletion takes the topic too
    discard_state     boolean     not null default false,
    delete_topic      boolean     not null default false,
    -- the revision that begins with an empty state
    fresh_revision    integer,

    -- how far our calls have brought it
    position          text        not null default 'nothing' check (position in ('nothing', 'deployed', 'paused', 'stopped', 'removed')),
    attempt           integer     not null default 0,
    deployed_revision integer,
    deployed_at       timestamptz,
    previous_revision integer,
    failed_revision   integer,
    changes           text        check (changes in ('append', 'upsert')),
    -- where its state was kept last, of which revision, and whether that is a savepoint of ours
    restore_path      text,
    restore_savepoint boolean,
    restore_revision  integer,
    -- older places of the same state, the latest first: [{"path", "savepoint"}]
    restore_others    jsonb       not null default '[]',
    -- the cluster that it was deployed on last: what another one says does not count
    cluster           text,
    -- savepoints that are still there: [{"path", "savepoint"}]
    savepoints        jsonb       not null default '[]',
    call              jsonb,
    called_at         timestamptz,
    tries             integer     not null default 0,
    restarts          integer     not null default 0,
    failures          integer     not null default 0,
    retry_at          timestamptz,
    last_error        text,

    -- what was seen of it
    observed          text        not null default 'absent' check (observed in ('absent', 'unknown', 'starting', 'running',
                                          'degraded', 'restarting', 'paused', 'stopping', 'stopped', 'failed')),
    engine_state      text,
    observed_at       timestamptz,
    drift             text,

    updated_at        timestamptz not null default now(),
    -- raised by every write: who writes what it has read before is told when that is old
    change            bigint      not null default 1,
    check ((restore_path is null) = (restore_revision is null) and (restore_path is null) = (restore_savepoint is null)),
    check ((call is null) = (tries = 0))
);
create unique index stream_definitions_name on stream_definitions (lower(name)) where intent <> 'deleted';
create index stream_definitions_latest on stream_definitions (created_at, id);

-- Every text that a definition had, those of deleted ones too. `statement`, `sources` and what it gives are kept when it is to be deployed, so that it can
-- be deployed again as it was.
create table stream_revisions (
    definition_id uuid        not null,
    revision      integer     not null,
    sql_script    text        not null check (octet_length(sql_script) <= 262144),
    author        text        not null,
    created_at    timestamptz not null default now(),
    statement     text,
    sources       jsonb,
    columns       jsonb,
    changes       text        check (changes in ('append', 'upsert')),
    primary key (definition_id, revision)
);

-- What happened to definitions, those that are gone by now too. The latest 500 of each are kept.
create table stream_events (
    id            bigint      generated always as identity primary key,
    definition_id uuid        not null,
    name          text        not null,
    at            timestamptz not null default now(),
    what          text        not null,
    -- null: the manager itself
    actor         text,
    detail        text
);
create index stream_events_of_definition on stream_events (definition_id, id);

-- Topics that outlived their definitions.
create table stream_leftovers (
    topic      text        primary key,
    name       text        not null,
    deleted_by text        not null,
    deleted_at timestamptz not null default now()
);

-- Sources that people have declared: what can be selected from beside what the schema registry and the engines know.
create table stream_sources (
    name        text        primary key check (name ~ '^[A-Za-z_][A-Za-z0-9_]{0,62}$'),
    topic       text        not null check (length(topic) between 1 and 249),
    format      text        not null check (format in ('json', 'avro')),
    columns     jsonb       not null check (octet_length(columns::text) <= 262144),
    event_time  jsonb,
    declared_by text        not null,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index stream_sources_name on stream_sources (lower(name));
