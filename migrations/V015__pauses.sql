-- Views whose projection stands still by an operator's word, and how long that was so: no build of a view is applied to while
-- a row of it has no end. Whoever takes a partition over looks here afterwards, so a pause and its fences are of one moment.
create table view_pauses (
    id            bigint      generated always as identity primary key,
    view          text        not null,
    reason        text        not null,
    actor         text        not null,
    since         timestamptz not null default now(),
    resumed_at    timestamptz,
    resume_reason text,
    resumed_by    text,
    check ((resumed_at is null) = (resume_reason is null) and (resumed_at is null) = (resumed_by is null))
);
create unique index view_pauses_one_at_a_time on view_pauses (view) where resumed_at is null;
