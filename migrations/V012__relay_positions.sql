-- How far each DLQ topic is known: every letter below is marked. From there the relay reads on before it publishes.
create table relay_positions (
    view        text    not null,
    topic       text    not null,
    partition   integer not null,
    next_offset bigint  not null,
    primary key (view, topic, partition)
);
