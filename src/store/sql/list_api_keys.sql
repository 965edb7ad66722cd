select id, name, role, prefix, created_by, created_at, expires_at, revoked_at, last_used_at, on_behalf_of, revoked_by
from api_keys
order by id desc
