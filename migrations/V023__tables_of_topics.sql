-- Topics that are declared as tables: which columns are their key, and how the keys are written.
alter table stream_sources add column of_keys jsonb;
