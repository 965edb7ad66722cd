-- Keys by which programs log in. What a key is nobody can tell from here: it is shown once, when it is made, and kept as a
-- hash; 256 random bits need no slow one.
create table api_keys (
    id           bigint generated always as identity primary key,
    name         text        not null check (length(name) between 1 and 256),
    role         text        not null check (role in ('reader', 'developer', 'operator', 'admin')),
    -- how it begins, so that people can tell theirs apart
    prefix       text        not null,
    hash         bytea       not null unique check (length(hash) = 32),
    created_by   text        not null,
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);

-- Who called what: every call of a route that changes something, and every call that was refused. Refusals that are alike are
-- one row with how many they were, so that whoever tries keys by the thousand fills no disk.
create table audit_log (
    id        bigint generated always as identity primary key,
    at        timestamptz not null,
    -- null: nobody has logged in
    principal text,
    method    text        not null,
    -- the pattern, such as /ops/held/{key}/skip
    route     text        not null,
    target    text        not null,
    status    integer     not null,
    -- the problem's code, if it was one
    code      text,
    trace_id  text        not null,
    address   text        not null,
    calls     integer     not null check (calls > 0)
);
create index audit_log_at on audit_log (at);
create index audit_log_principal on audit_log (principal, id);
