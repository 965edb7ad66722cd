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
