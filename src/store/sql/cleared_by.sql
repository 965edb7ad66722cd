select max(id) from operations where view = $1 and from_build = $2 and to_build = $2 and kind = 'rebuild' and phase <> 'preflight'
