-- Each commit of a partition names the rows of the ledger that came with it: one row here in the place of an entry for each of
-- them in an index. Builds made from now on have the table from the start (`create_ledger.sql`). Runs again after all migrations
-- (`store/migrate.rs`), for what a process of the version before has made meanwhile.
do $$
declare
    build text;
begin
    for build in
        select b.view || '_' || b.build
        from view_builds b
        where to_regclass(format('%I.ledger', b.view || '_' || b.build)) is not null
          and to_regclass(format('%I.commits', b.view || '_' || b.build)) is null
    loop
        -- Nobody writes meanwhile; who reads goes on until the last moment.
        execute format('lock table %I.ledger in share mode', build);
        execute format('create table %I.commits (
                            partition integer not null,
                            commit    bigint  not null,
                            keys      text[]  collate "C" not null,
                            sequences bigint[] not null
                        )', build);
        execute format('alter table %I.commits alter column keys set storage external,
                                               alter column sequences set storage external', build);
        -- Rows from before there were commits are told to nobody.
        execute format('insert into %1$I.commits
                        select commit_partition, commit_number, array_agg(key order by key, sequence),
                               array_agg(sequence order by key, sequence)
                        from %1$I.ledger
                        where commit_partition >= 0
                        group by commit_partition, commit_number', build);
        execute format('alter table %I.commits add constraint commits_pkey primary key (partition, commit)', build);
        -- By the old name, a projector of the version before that still runs would write rows that no commit names: it halts.
        execute format('alter table %I.ledger rename column commit_number to commit', build);
        execute format('drop index if exists %I.ledger_commits', build);
    end loop;
end $$;
