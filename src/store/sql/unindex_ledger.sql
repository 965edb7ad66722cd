-- Runs twice without harm.
truncate ledger, commits;
alter table ledger drop constraint if exists ledger_pkey;
