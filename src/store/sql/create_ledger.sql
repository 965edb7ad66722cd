-- The ledger of a build: one row for every sequence number that a key has consumed.
create table ledger (
    key              text        collate "C" not null,
    sequence         bigint      not null,
    event_id         text        collate "C" not null,
    event_type       text        collate "C" not null,
    occurred_at      timestamptz not null,
    -- where the record was read; -1 if it is none
    partition        integer     not null,
    "offset"         bigint      not null,
    -- applied | duplicate (same event id under a new number) | unknown_type | replaced | skipped
    effect           text        collate "C" not null,
    payload          text,
    -- the partition in whose turn it was committed, and the number of that commit
    commit_partition integer     not null,
    commit_number    bigint      not null
);
