select 1 from projection_progress where view = $1 and build = $2 order by topic, partition for update
