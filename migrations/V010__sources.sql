-- A build belongs to one log, by cluster, topic and topic id: another one is never mixed into its rows. Each is null until a
-- takeover has learnt it.
alter table view_builds add column source_cluster text,
                        add column source_topic text,
                        add column source_topic_id text,
                        add column bound_at timestamptz;

-- Of builds from before, their progress tells; where it tells of several, the next takeover does.
update view_builds b
set source_topic = p.topic, source_topic_id = p.topic_id, bound_at = now()
from (
    select view, build, min(topic) as topic, min(topic_id) as topic_id
    from projection_progress
    group by view, build
    having count(distinct topic) = 1 and count(distinct topic_id) <= 1
) p
where p.view = b.view and p.build = b.build;

-- Which logs operators have said to be the same: moved with their offsets.
create table source_moves (
    id            bigint      generated always as identity primary key,
    view          text        not null,
    from_cluster  text,
    from_topic    text        not null,
    from_topic_id text,
    to_topic      text        not null,
    reason        text        not null,
    actor         text        not null,
    decided_at    timestamptz not null default now()
);

-- Times that a producer had counted in other units: no calendar of an answer has them, and none are written any more.
update projection_progress
set last_record_timestamp = null
where last_record_timestamp > '9999-12-30 21:59:59.999999+00' or last_record_timestamp = '-infinity';
