//! When a gap counts as proven: a keeper of our own, fed with observations as they may come after an outage of Kafka.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use streamview::config::Config;
use streamview::domain::build::Build;
use streamview::domain::decimal::Decimal;
use streamview::domain::lag::{LagHistory, PartitionPosition};
use streamview::domain::meaning::Meaning;
use streamview::domain::units::{NextOffset, Offset, Partition};
use streamview::engine::view::View;
use streamview::projector::context::ViewContext;
use streamview::projector::keeper::Keeper;
use streamview::projector::runtime::{Parts, context};
use streamview::store::pool;
use streamview::telemetry::metrics::Metrics;
use streamview::views::orders::Orders;
use tokio_util::sync::CancellationToken;

use crate::support::world::World;
use crate::support::{PATIENCE, until};

fn context_of(world: &World) -> Arc<ViewContext> {
    let mut environment = world.environment();
    environment.push(("STREAMVIEW_KAFKA__TOPIC_IDS".to_owned(), "false".to_owned()));
    let config = Arc::new(Config::load(None, environment, &[]).unwrap());
    streamview::schemas::client::install_tls();
    let parts = Parts {
        settings: world.view_settings(),
        metrics: Arc::new(Metrics::new()),
        pool: pool::read_pool(&config.database).unwrap(),
        build: Build(1),
        meaning: Meaning { projection_version: 1, rules: config.rules_of(&world.view_settings()) },
        stands: None,
        group: world.group.clone(),
        config,
    };
    context(Orders::new("orders", Decimal::ZERO).spec(), &parts, false).unwrap()
}

/// What the observer would tell of a log that ends there, having begun to ask at `asked`.
fn observe(context: &ViewContext, asked: Instant, ends: [i64; 2]) {
    let lags = ends.iter().enumerate().map(|(partition, end)| {
        let partition = i32::try_from(partition).unwrap();
        let (low_watermark, high_watermark, last_record_timestamp) = (0, *end, None);
        let position = PartitionPosition {
            partition: Partition(partition),
            next_offset: NextOffset(5),
            low_watermark: Offset(low_watermark),
            high_watermark: NextOffset(high_watermark),
            last_record_timestamp,
        };
        LagHistory::default().observe(position, Timestamp::now(), None)
    });
    context.status.observe_lags(asked, Timestamp::now(), lags.collect());
}

async fn hold(world: &World, key: &str, watched_ends: &str) {
    let row = format!(
        "insert into held_keys (view, build, key, reason, missing_from, parked_count, parked_bytes, topic, partition, watched_ends)
         values ('orders', 1, '{key}', 'gap', 2, 1, 10, '{}', 0, {watched_ends})",
        world.topic
    );
    world.sql.batch_execute(&row).await.unwrap();
}

async fn until_held(world: &World, what: &str) {
    until(&format!("a held key is {what}"), PATIENCE, || async {
        (world.number(&format!("select count(*) from held_keys where {what}")).await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_proven_by_where_the_log_ended_after_it_was_there_and_not_before() {
    let world = World::new(2).await;
    let progress = format!(
        "insert into projection_progress (view, build, topic, partition, next_offset)
         select 'orders', 1, '{}', p, 5 from generate_series(0, 1) p",
        world.topic
    );
    world.sql.batch_execute(&progress).await.unwrap();
    let (context, stop) = (context_of(&world), CancellationToken::new());
    // Seen before Kafka went away, and all that the observer has when it is back.
    let before = Instant::now();
    observe(&context, before, [5, 5]);
    // Meanwhile records came, one of a key ahead of its turn. What is missing is at offset 7 of partition 1.
    hold(&world, "o-1", "null").await;
    let keeper = tokio::spawn(Keeper::new(Arc::clone(&context), Vec::new()).run(stop.clone()));

    // Each marker is proven by a sweep that follows the one before.
    for marker in ["m-1", "m-2", "m-3"] {
        hold(&world, marker, "'{0,0}'").await;
        until_held(&world, &format!("key = '{marker}' and proven_at is not null")).await;
        observe(&context, before, [5, 5]);
    }
    let watched =
        "select count(*) from held_keys where key = 'o-1' and (watched_ends is not null or proven_at is not null)";
    assert_eq!(world.number(watched).await, 0, "its ends are older than the gap");

    observe(&context, Instant::now(), [5, 9]);
    until_held(&world, "key = 'o-1' and watched_ends = '{5,9}' and proven_at is null").await;
    world.sql.batch_execute("update projection_progress set next_offset = 9 where partition = 1").await.unwrap();
    until_held(&world, "key = 'o-1' and proven_at is not null").await;
    stop.cancel();
    keeper.await.unwrap();
}
