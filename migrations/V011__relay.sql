-- The id of the event that was refused, where it could be read: a late copy of it is known by that.
alter table dead_letters add column event_id text collate "C";
