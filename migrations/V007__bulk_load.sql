-- A build whose tables are being filled in bulk: until this is null again they have no indexes and are not whole, and
-- nobody else projects into them.
alter table view_builds add column loading_since timestamptz;
