update api_keys set last_used_at = now() where id = any ($1::bigint[])
