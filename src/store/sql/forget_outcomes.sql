-- The build has yet to fold with every decision.
update decision_outcomes set taken_at = null, refused = null where view = $1 and build = $2
