-- What others do by hand to what an engine runs for us is undone, but not for ever: how often that was done, since when, and as
-- what the engine calls the text that we have deployed (`<attempt>:<hash>`), so that another one is noticed.
alter table stream_definitions
    add column heals       integer     not null default 0,
    add column heals_since timestamptz,
    add column running_as  text;

-- Events go by their age, too: those of definitions that are deleted would stay for ever.
create index stream_events_age on stream_events (at);
