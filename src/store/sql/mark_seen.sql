-- Marks letters of the active build that stand on the DLQ topic already. A letter is known by its record's position and the
-- moment it was refused; one that another build published counts for the same record's letter of this one, as it does when
-- a build becomes active.
update dead_letters d
set published_at = now()
from unnest($2::text[], $3::integer[], $4::bigint[], $5::timestamptz[]) as seen (topic, partition, "offset", at)
where d.view = $1 and d.build = (select build from view_builds where view = $1 and active) and d.published_at is null
  and d.topic = seen.topic and d.partition = seen.partition and d."offset" = seen."offset"
  and exists (
      select from view_builds b
      join dead_letters s on s.view = b.view and s.build = b.build and s.topic = seen.topic
          and s.partition = seen.partition and s."offset" = seen."offset"
      where b.view = $1 and s.created_at = seen.at)
