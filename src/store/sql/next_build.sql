-- A number that no build of the view has had as far as anybody remembers.
select greatest((select max(build) from view_builds where view = $1), (select max(to_build) from operations where view = $1)) + 1
