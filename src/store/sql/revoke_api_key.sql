-- One that is revoked stays as it is.
update api_keys
set revoked_at = coalesce(revoked_at, now()), revoked_by = case when revoked_at is null then $2 else revoked_by end
where id = $1
