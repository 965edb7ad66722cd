-- Deployed streams: of one owner, and of all. What has failed for good and does not run holds no place.
select count(*) filter (where owner = $1), count(*)
from stream_definitions
where intent in ('running', 'paused')
  and not (failed_revision is not distinct from revision and observed in ('absent', 'stopped', 'failed'))
  and ($2::text is null or id <> $2::text::uuid)
