-- Each commit of a partition names the rows of the ledger that came with it: one row here in the place of an entry for each of
-- them in an index. Builds made from now on have the table from the start (`create_ledger.sql`).
do $$
declare
    build text;
begin
    for build in select b.view || '_' || b.build from view_builds b loop
        -- By the old name, a projector of the version before that still runs would write rows that no commit names: it halts.
        execute format('alter table %I.ledger rename column commit_number to commit', build);
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
                        select commit_partition, commit, array_agg(key order by key, sequence),
                               array_agg(sequence order by key, sequence)
                        from %1$I.ledger
                        where commit_partition >= 0
                        group by commit_partition, commit', build);
        execute format('alter table %I.commits add constraint commits_pkey primary key (partition, commit)', build);
        execute format('drop index if exists %I.ledger_commits', build);
    end loop;
end $$;
