-- `streamview migrate --roles`, first half: makes the roles, and gives the owner what there is. For a superuser, or for who may
-- create roles and owns the database and the tables. Runs twice without harm.

-- The roles belong to the server, and nobody logs in as one: people and services are made members of them.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['streamview_owner', 'streamview_writer', 'streamview_reader'] loop
        if to_regrole(wanted) is null then
            begin
                execute format('create role %I nologin', wanted);
            exception when duplicate_object or unique_violation then
                null; -- somebody has made it for another database of the server at the same moment
            end;
        end if;
    end loop;
end $$;

-- Whoever gives something away has to be able to act as who gets it.
do $$
declare
    to_act text := case when current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end;
begin
    if not pg_has_role(current_user, 'streamview_owner', to_act) then
        execute format('grant streamview_owner to %I', current_user);
    end if;
end $$;

do $$ begin
    execute format('grant connect, create, temporary on database %I to streamview_owner', current_database());
    execute format('grant connect, temporary on database %I to streamview_writer', current_database());
    execute format('grant connect on database %I to streamview_reader', current_database());
    grant usage, create on schema public to streamview_owner;
    grant usage on schema public to streamview_writer, streamview_reader;
    -- Who may not grant is only warned.
    if not has_database_privilege('streamview_owner', current_database(), 'create')
       or not has_schema_privilege('streamview_owner', 'public', 'create') then
        raise exception 'streamview_owner needs the right to create in the database % and in its schema public', current_database()
            using errcode = 'insufficient_privilege',
                  hint = 'run this as the owner of the database, or have that one grant it';
    end if;
end $$;

-- What is ours: the control tables, the tables of builds, and the public views over them. Nobody else's views, whatever they
-- show. First told, then done: what a query still reads is not given away.
do $$
declare
    former oid := (select relowner from pg_class where oid = 'public.view_builds'::regclass);
    builds oid[] := array(select n.oid from pg_namespace n join public.view_builds b on n.nspname = b.view || '_' || b.build);
    gifts text[] := array(select format('schema %s', n.oid::regnamespace)
                          from pg_namespace n
                          where n.oid = any (builds) and n.nspowner <> 'streamview_owner'::regrole);
    gift text;
begin
    gifts := gifts || array(
        with ours as (
            select c.oid, c.relowner
            from pg_class c
            where c.relkind = 'r'
              and (c.relnamespace = any (builds)
                   or c.relnamespace = 'public'::regnamespace
                      and c.relname in ('refinery_schema_history', 'view_builds', 'projection_progress', 'held_keys',
                                        'parked_events', 'dead_letters', 'event_decisions', 'idempotent_calls', 'skipped_ranges',
                                        'blocked_partitions', 'decision_outcomes', 'source_moves', 'relay_positions',
                                        'operations', 'operation_differences', 'build_switches', 'view_pauses', 'api_keys',
                                        'audit_log', 'stream_definitions', 'stream_revisions', 'stream_events',
                                        'stream_leftovers', 'stream_sources', 'stream_queries'))
        )
        select format('table %s', oid::regclass) from ours where relowner <> 'streamview_owner'::regrole
        union
        select format('view %s', v.oid::regclass)
        from pg_class v
        join pg_rewrite r on r.ev_class = v.oid
        join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
        join ours on ours.oid = d.refobjid
        where v.relkind = 'v' and v.relnamespace = 'public'::regnamespace and v.relowner = former
          and v.relowner <> 'streamview_owner'::regrole);
    foreach gift in array gifts loop
        execute format('alter %s owner to streamview_owner', gift);
    end loop;
end $$;
