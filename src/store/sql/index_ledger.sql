alter table ledger add constraint ledger_pkey primary key (key, sequence);
analyze ledger;
