-- The first call with this key gets a row; a second one waits here until the first has ended, then gets none.
insert into idempotent_calls (key, request, status, answer) values ($1, $2, 0, 'null') on conflict (key) do nothing
