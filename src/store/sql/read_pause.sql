select reason, actor, since, on_behalf_of from view_pauses where view = $1 and resumed_at is null
