-- Whatever its ledger was before, it is made anew with notes of its commits (unindex_ledger.sql), which its rules have to say.
update view_builds
set loading_since = now(), rules = rules || '{"ledger": "by_commits"}'
where view = $1 and build = $2
