-- `streamview migrate --roles`, second half, and every later `migrate` of a database that has the roles: who may do what. Run as
-- the owner. Exact: what else was granted to writer and reader on these tables is taken away.

-- How long the audit log is kept at least: the writer adds to it, and takes away only what is older. That this table is there
-- tells every session that there are roles to take (`store/roles.rs`).
create table if not exists public.audit_retention (
    days     integer not null check (days >= 0), -- 0 = for ever
    only_one boolean primary key default true check (only_one)
);

create or replace function public.forget_audit(days integer, most bigint) returns bigint
    language sql security definer set search_path = pg_catalog, pg_temp
as $$
    with gone as (
        delete from public.audit_log
        where id in (select l.id
                     from public.audit_log l
                     join public.audit_retention r on r.days > 0
                     where l.at < now() - make_interval(days => greatest(forget_audit.days, r.days))
                     order by l.at
                     limit forget_audit.most)
        returning 1
    )
    select count(*) from gone
$$;
revoke all on function public.forget_audit(integer, bigint) from public;
grant execute on function public.forget_audit(integer, bigint) to streamview_writer;

revoke all on public.refinery_schema_history, public.view_builds, public.projection_progress, public.held_keys,
    public.parked_events, public.dead_letters, public.event_decisions, public.idempotent_calls, public.skipped_ranges,
    public.blocked_partitions, public.decision_outcomes, public.source_moves, public.relay_positions, public.operations,
    public.operation_differences, public.build_switches, public.view_pauses, public.api_keys, public.audit_log,
    public.audit_retention, public.dead_letters_view, public.stream_definitions, public.stream_revisions,
    public.stream_events, public.stream_leftovers, public.stream_sources, public.stream_queries
    from streamview_writer, streamview_reader;

-- The writer: rows, and of these only what projecting, deciding and serving takes. What makes, switches and drops builds is done
-- as the owner.
grant select on public.refinery_schema_history, public.view_builds, public.build_switches, public.dead_letters_view
    to streamview_writer;
-- `active` is not changed: somebody who may change nothing may lock nothing, either.
grant update (active, source_cluster, source_topic, source_topic_id, bound_at, projection_version, rules)
    on public.view_builds to streamview_writer;
grant select, insert, update on public.event_decisions, public.decision_outcomes, public.skipped_ranges,
    public.blocked_partitions, public.view_pauses, public.relay_positions, public.operations, public.projection_progress,
    public.dead_letters, public.api_keys
    to streamview_writer;
grant select, insert, update, delete on public.idempotent_calls, public.held_keys, public.parked_events,
    public.operation_differences, public.stream_definitions, public.stream_revisions, public.stream_events,
    public.stream_leftovers, public.stream_sources, public.stream_queries
    to streamview_writer;
grant select, insert on public.source_moves, public.audit_log to streamview_writer;

-- The reader: what the API reads of views. Of letters that they are there, not what is in them, and nothing of keys.
grant select on public.view_builds, public.projection_progress, public.held_keys, public.build_switches
    to streamview_reader;
grant select (id, view, build, topic, partition, "offset", record_timestamp, reason, key, sequence, created_at, published_at)
    on public.dead_letters, public.dead_letters_view to streamview_reader;
grant select (decision_id, status) on public.dead_letters_view to streamview_reader;

-- Builds that are there. Those that are made from now on get the same (`builds/create.rs`).
do $$
declare
    build text;
    shown regclass;
begin
    for build in
        select n.nspname
        from pg_namespace n
        join public.view_builds b on n.nspname = b.view || '_' || b.build
    loop
        execute format('grant usage on schema %I to streamview_writer, streamview_reader', build);
        execute format('grant select, insert, update, delete on all tables in schema %I to streamview_writer', build);
        execute format('grant select on all tables in schema %I to streamview_reader', build);
        execute format('alter default privileges in schema %I grant select, insert, update, delete on tables to streamview_writer', build);
        execute format('alter default privileges in schema %I grant select on tables to streamview_reader', build);
    end loop;
    for shown in
        select c.oid::regclass
        from pg_class c
        where c.relkind = 'v' and c.relnamespace = 'public'::regnamespace and c.relowner = 'streamview_owner'::regrole
          and exists (select from pg_rewrite r
                      join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
                                          and d.refclassid = 'pg_class'::regclass
                      join pg_class t on t.oid = d.refobjid
                      join pg_namespace n on n.oid = t.relnamespace
                      join public.view_builds b on n.nspname = b.view || '_' || b.build
                      where r.ev_class = c.oid)
    loop
        execute format('revoke all on %s from streamview_writer, streamview_reader', shown);
        execute format('grant select on %s to streamview_writer, streamview_reader', shown);
    end loop;
end $$;
