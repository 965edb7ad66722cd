alter table ledger add constraint ledger_pkey primary key (key, sequence);
-- For who follows the ledger commit by commit. All rows of one commit are equal in it, so it stays small.
create index ledger_commits on ledger (commit_partition, commit_number);
analyze ledger;
