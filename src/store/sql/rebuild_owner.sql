-- Who owns the tables of a build, whether this role may act as that owner, and whether it may make schemas: what a rebuild
-- needs.
select r.rolname, pg_has_role(c.relowner, 'usage'), has_database_privilege(current_database(), 'create')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_roles r on r.oid = c.relowner
where n.nspname = $1 and c.relkind = 'r'
order by pg_has_role(c.relowner, 'usage'), c.relname
limit 1
