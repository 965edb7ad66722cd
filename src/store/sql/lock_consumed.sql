-- Whether the build has consumed anything, of whatever topic. No batch is under way from here on.
select count(*) filter (where consumed > 0) > 0
from (select consumed from projection_progress where view = $1 and build = $2 for update) locked
