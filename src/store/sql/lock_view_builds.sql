-- One decision of a view at a time. A partition that gets its first progress row meanwhile waits too: the row's foreign
-- key asks for this lock.
select build from view_builds where view = $1 order by build for update
