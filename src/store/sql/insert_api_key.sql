insert into api_keys (name, role, prefix, hash, created_by, expires_at, on_behalf_of)
values ($1, $2, $3, $4, $5, $6, $7)
returning id, name, role, prefix, created_by, created_at, expires_at, revoked_at, last_used_at, on_behalf_of,
          revoked_by
