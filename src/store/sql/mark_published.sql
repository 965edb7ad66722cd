update dead_letters set published_at = now() where id = any ($1::bigint[])
