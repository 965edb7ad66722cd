-- Who follows a ledger asks for the rows of a partition's commits after a number. Builds made from now on have the index from
-- the start (`index_ledger.sql`); here it is put on those that are there already. Not on one that is being loaded: it is
-- put on when that ends.
do $$
declare
    ledger text;
begin
    for ledger in
        select format('%I.ledger', b.view || '_' || b.build)
        from view_builds b
        join pg_constraint k on k.conrelid = to_regclass(format('%I.ledger', b.view || '_' || b.build))
        where k.conname = 'ledger_pkey'
    loop
        execute 'create index ledger_commits on ' || ledger || ' (commit_partition, commit_number)';
    end loop;
end $$;
