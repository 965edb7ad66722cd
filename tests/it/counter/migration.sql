create schema counter_1;
create table counter_1.counts (key text primary key, last_sequence bigint not null, last_event_id text not null, count bigint not null);
create table counter_1.ledger (key text not null, sequence bigint not null, event_id text not null, primary key (key, sequence));
insert into view_builds (view, build) values ('counter', 1);
