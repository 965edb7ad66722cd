-- A number for each change of a declaration, never given twice: a name that is declared anew is not what somebody has read of the
-- one before.
alter table stream_sources add column version bigint not null generated always as identity;
