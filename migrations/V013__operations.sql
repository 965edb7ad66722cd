-- A build keeps its meaning whatever the configuration says later: the version of its projection and the settings that
-- change rows (ViewRules as JSON; null: made before these were kept, taken from the configuration at the next start).
-- `kept_until`: readers read another one by now; it is fed until then, so that going back shows everything.
alter table view_builds add column projection_version integer not null default 1,
                        add column rules jsonb,
                        add column kept_until timestamptz,
                        add check (kept_until is null or not active);

-- What operators have asked for that takes longer than a call: rebuilds, verifications. One at a time for a view.
create table operations (
    id             bigint      generated always as identity primary key,
    kind           text        not null check (kind in ('rebuild', 'rollback', 'verify')),
    view           text        not null,
    state          text        not null default 'running' check (state in ('running', 'done', 'cancelled', 'failed')),
    phase          text        not null,
    request        jsonb       not null,
    reason         text        not null,
    actor          text        not null,
    from_build     integer,
    to_build       integer,
    records_done   bigint      not null default 0,
    records_total  bigint,
    comparison     jsonb,
    error          jsonb,
    -- What its driver was asked for meanwhile: 'cancel', 'cutover'.
    asked          text        check (asked in ('cancel', 'cutover')),
    started_at     timestamptz not null default now(),
    -- when each phase began: [{"phase": "loading", "at": …}]
    phases         jsonb       not null default '[]',
    updated_at     timestamptz not null default now(),
    finished_at    timestamptz,
    check ((state = 'running') = (finished_at is null))
);
create unique index operations_one_at_a_time on operations (view) where state = 'running';

-- What a comparison or a verification found, one row per key; `found` is missing_old, missing_new or different.
create table operation_differences (
    operation_id bigint not null references operations (id) on delete cascade,
    key          text   collate "C" not null,
    found        text   not null,
    columns      jsonb  not null,
    primary key (operation_id, key)
);

-- Each time readers were switched from one build to another: how far both were, as commit numbers by partition
-- ({"0": 17}). Whatever the old one had committed up to `from_commits` is in the new one, and whatever the new one had
-- committed up to `to_commits` is among that.
create table build_switches (
    id           bigint      generated always as identity primary key,
    view         text        not null,
    from_build   integer     not null,
    to_build     integer     not null,
    from_commits jsonb       not null,
    to_commits   jsonb       not null,
    operation_id bigint      references operations (id),
    switched_at  timestamptz not null default now()
);
create index build_switches_of_view on build_switches (view, id);
