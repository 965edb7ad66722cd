-- What an operator gave up: records of a view's topic that no build applies, now or later.
create table skipped_ranges (
    id              bigint      generated always as identity primary key,
    view            text        not null,
    topic           text        not null,
    partition       integer     not null,
    -- first offset skipped, and the first one after it that is read again
    from_offset     bigint      not null,
    to_offset       bigint      not null,
    reason          text        not null,
    actor           text,
    decided_at      timestamptz not null default now(),
    idempotency_key text,
    check (to_offset > from_offset)
);
create index skipped_ranges_of_partition on skipped_ranges (view, topic, partition, from_offset);
create unique index skipped_ranges_once on skipped_ranges (view, idempotency_key) where idempotency_key is not null;

-- Where a build cannot go on without an operator, and why. A row counts only while `next_offset` is still the
-- partition's position: nobody has to remove it when the partition moves.
create table blocked_partitions (
    view        text        not null,
    build       integer     not null,
    topic       text        not null,
    partition   integer     not null,
    next_offset bigint      not null,
    -- unreadable_batch | log_truncated
    code        text        not null,
    detail      text        not null,
    since       timestamptz not null default now(),
    primary key (view, build, topic, partition)
);
