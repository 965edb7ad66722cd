delete from decision_outcomes where view = $1 and build = $2
