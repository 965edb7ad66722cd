-- Schemas of which this role may use nothing, whatever it may do with their tables.
select nspname from pg_namespace
where nspname = any($1::text[] || 'public'::text) and not has_schema_privilege(oid, 'usage')
order by nspname
