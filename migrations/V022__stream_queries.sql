-- Queries of people who look, of all instances: each tells its own here, so that limits count all of them and whoever asks for one
-- is told where it runs. Whoever has not told for a while is gone, and so are its queries.
create unlogged table stream_queries (
    id         text        primary key check (length(id) = 32),
    instance   text        not null check (length(instance) between 1 and 300),
    engine     text        not null,
    owner      text        not null,
    sql_script text        not null check (octet_length(sql_script) <= 262144),
    started_at timestamptz not null,
    ends_at    timestamptz not null,
    is_read    boolean     not null,
    rows       bigint      not null,
    bytes      bigint      not null,
    left_out   jsonb       not null,
    tables     jsonb       not null,
    told_at    timestamptz not null default now()
);
