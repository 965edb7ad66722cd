-- A late event that is none of its key's is looked for by its id among the letters of its number: a producer that gives every
-- event one key has any number of letters under one number, and each further event read all of them. Nobody writes letters while
-- the index is made, which takes a second or two for a million of them; who reads goes on until the last moment.
lock table dead_letters in exclusive mode;
create index if not exists dead_letters_of_event on dead_letters (view, build, key, sequence, event_id) where key is not null;
drop index if exists dead_letters_of_key;
