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
    commit           bigint      not null
);
-- For who follows the ledger commit by commit: each commit of a partition with the rows that came with it, by key and number.
-- One row for all of them costs a tenth of what an index entry for each would.
create table commits (
    partition integer not null,
    commit    bigint  not null,
    keys      text[]  collate "C" not null,
    sequences bigint[] not null,
    constraint commits_pkey primary key (partition, commit)
);
-- Thousands of keys at a time: to compress them would cost more than to write them.
alter table commits alter column keys set storage external, alter column sequences set storage external;
