-- Runs twice without harm.
truncate ledger;
alter table ledger drop constraint if exists ledger_pkey;
-- Builds from before commits were noted have this index instead of the table.
drop index if exists ledger_commits;
create table if not exists commits (
    partition integer not null,
    number    bigint  not null,
    keys      text[]  collate "C" not null,
    sequences bigint[] not null,
    constraint commits_pkey primary key (partition, number)
);
alter table commits alter column keys set storage external, alter column sequences set storage external;
truncate commits;
