-- What this role may not do that a service has to; one row for each table or view. $1: schemas of builds, $2: the table of
-- each that has one row for each key, which is changed in place, as that of commits is, $3: whether callers log in with keys,
-- $4: whether it manages streams, $5: whether it takes old entries out of the audit log itself.
with needed (schema, relation, privilege, columns) as (
    select 'public'::text, relation, unnest(string_to_array(privileges, ' ')), null::text
    from (values
        ('refinery_schema_history', 'select'), ('view_builds', 'select'), ('build_switches', 'select'),
        ('orders_view', 'select'), ('order_items_view', 'select'), ('order_events_view', 'select'),
        ('dead_letters_view', 'select'), ('operation_differences', 'select insert update delete'),
        ('event_decisions', 'select insert update'), ('decision_outcomes', 'select insert update'),
        ('skipped_ranges', 'select insert update'), ('blocked_partitions', 'select insert update'),
        ('source_moves', 'select insert'), ('view_pauses', 'select insert update'),
        ('relay_positions', 'select insert update'), ('operations', 'select insert update'),
        ('idempotent_calls', 'select insert update delete'),
        ('projection_progress', 'select insert update'), ('dead_letters', 'select insert update'),
        ('held_keys', 'select insert update delete'), ('parked_events', 'select insert update delete'),
        ('audit_log', 'select insert')
    ) as control (relation, privileges)
    union all
    select 'public', 'api_keys', unnest(array['select', 'insert', 'update']), null where $3
    union all
    select 'public', relation, unnest(array['select', 'insert', 'update', 'delete']), null
    from unnest(array['stream_definitions', 'stream_revisions', 'stream_events', 'stream_leftovers', 'stream_sources',
                      'stream_queries']) as relation
    where $4
    union all
    select 'public', 'audit_log', 'delete', null where $5
    union all
    select 'public', 'view_builds', 'update',
           unnest(array['active', 'source_cluster', 'source_topic', 'source_topic_id', 'bound_at', 'rules'])
    union all
    select n.nspname::text, c.relname::text, unnest(array['select', 'insert', 'delete']), null
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = any($1::text[]) and c.relkind = 'r'
    union all
    select build.schema, unnest(array[build.relation, 'commits']), 'update', null
    from unnest($1::text[], $2::text[]) as build (schema, relation)
), missing as (
    select m.schema, m.relation, m.privilege, string_agg(m.columns, ', ') as columns, min(m.place) as place
    from (select row_number() over () as place, n.* from needed n) m
    join pg_namespace s on s.nspname = m.schema
    join pg_class c on c.relnamespace = s.oid and c.relname = m.relation
    where not case when m.columns is null then has_table_privilege(c.oid, m.privilege)
                   else has_column_privilege(c.oid, m.columns, m.privilege) end
    group by m.schema, m.relation, m.privilege
)
select format('%I.%I', schema, relation),
       string_agg(privilege || coalesce(' (' || columns || ')', ''), ', ' order by place)
from missing
group by schema, relation
order by min(place)
