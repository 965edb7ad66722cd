-- What operators decide about events that a view could not take, and when a gap counts as proven.

-- A decision belongs to the view, not to a build: every build folds with it, so that a replay gives the same rows.
--   skip     the numbers `sequence` to `sequence_to` of the key are consumed without effect
--   replace  the event with that number is this payload, whatever the log holds there
--   redrive  as replace, with the refused record's own bytes: for a record that can be read by now
-- `key` is null when the decision only closes a dead letter: there is nothing to fold.
create table event_decisions (
    id               bigint      generated always as identity primary key,
    view             text        not null,
    action           text        not null check (action in ('skip', 'replace', 'redrive')),
    key              text        collate "C",
    sequence         bigint,
    sequence_to      bigint,
    -- the dead letter that it answers, by position; null for a gap
    topic            text,
    partition        integer,
    "offset"         bigint,
    record_timestamp bigint,
    -- replace and redrive: value and headers as a record would have them
    payload          bytea,
    headers          bytea,
    reason           text        not null,
    actor            text        not null,
    decided_at       timestamptz not null default now(),
    -- when a build first folded with it
    taken_at         timestamptz,
    -- why no build can fold with it: it counts as never made
    refused          text,
    check ((key is null) = (sequence is null) and (key is null) = (sequence_to is null)),
    check (sequence <= sequence_to),
    check (action = 'skip' or payload is not null or key is null)
);
create unique index event_decisions_of_key on event_decisions (view, key, sequence)
    where key is not null and refused is null;
create unique index event_decisions_of_record on event_decisions (view, topic, partition, "offset")
    where topic is not null and refused is null;
create index event_decisions_pending on event_decisions (view, id)
    where key is not null and taken_at is null and refused is null;

-- Counts the decisions of the view. Raised, under the row's lock, by whoever decides; a batch that was folded with
-- another number than it finds here is folded again.
alter table projection_progress add column decisions bigint not null default 0;

-- Ends of all partitions when the gap was first looked at (index = partition), and since when all of them are consumed:
-- the missing event is not in the log.
alter table held_keys add column watched_ends bigint[], add column proven_at timestamptz;
create index held_keys_by_age on held_keys (view, build, since, key);

-- Answers already given to calls with an Idempotency-Key.
create table idempotent_calls (
    key        text        primary key,
    -- what was asked: the same key with another request is a mistake
    request    bytea       not null,
    status     integer     not null,
    answer     jsonb       not null,
    created_at timestamptz not null default now()
);
create index idempotent_calls_by_age on idempotent_calls (created_at);
