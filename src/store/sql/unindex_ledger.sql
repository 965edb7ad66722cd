-- Runs twice without harm.
truncate ledger;
alter table ledger drop constraint if exists ledger_pkey;
drop index if exists ledger_commits;
