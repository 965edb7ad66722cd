-- Gaps of which nobody has noted yet where the log ends.
select key, missing_from from held_keys
where view = $1 and build = $2 and reason = 'gap' and watched_ends is null
order by key limit $3
