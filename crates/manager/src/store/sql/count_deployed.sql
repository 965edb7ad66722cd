-- Deployed streams: of one owner, and of all. What runs counts until it has ended, whatever is wanted of it by now. What has failed
-- for good holds no place, unless the text before is taken back. `Record::has_place` says the same.
select count(*) filter (where owner = $1), count(*)
from stream_definitions
where (intent in ('running', 'paused')
       and not (failed_revision is not distinct from revision and previous_revision is null
                and observed in ('absent', 'stopped', 'failed'))
       or position in ('deployed', 'paused') and observed not in ('absent', 'stopped', 'failed')
       or call ->> 'do' = 'deploy')
  and ($2::text is null or id <> $2::text::uuid)
