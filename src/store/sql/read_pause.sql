select reason, actor, since from view_pauses where view = $1 and resumed_at is null
