select 1 from projection_progress where view = $1 order by build, topic, partition for update
