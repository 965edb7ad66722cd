select id, name, role, hash, expires_at
from api_keys
where revoked_at is null and (expires_at is null or expires_at > now())
