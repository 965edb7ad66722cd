//! What can be expected of a rebuild is known before it begins: a log that has lost what the present build was made from, or
//! is another one, is told by name and range.

use std::sync::Arc;

use streamview::builds::preflight::{Preflight, preflight};
use streamview::builds::{self};
use streamview::config::Config;
use streamview::domain::build::{Build, BuildId};
use streamview::domain::preflight::Outlook;
use streamview::projector::runtime::Parts;
use streamview::registrations;
use streamview::store::pool;
use streamview::telemetry::metrics::Metrics;
use streamview::views::orders::TABLES;

use crate::support::instance::Instance;
use crate::support::orders::life;
use crate::support::servers;
use crate::support::world::{TestRecord, World};

const NO_IDS: (&str, &str) = ("STREAMVIEW_KAFKA__TOPIC_IDS", "false");

fn parts(world: &World, build: i32, settings: &[(&str, &str)]) -> Parts {
    let mut environment = world.environment();
    environment.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let config = Arc::new(Config::load(None, environment, &[]).unwrap());
    streamview::schemas::client::install_tls();
    Parts {
        settings: world.view_settings(),
        metrics: Arc::new(Metrics::new()),
        pool: pool::read_pool(&config.database).unwrap(),
        build: Build(build),
        group: format!("{}.{build}", world.group),
        config,
    }
}

async fn look(world: &World, build: i32, settings: &[(&str, &str)]) -> Preflight {
    preflight("orders", &parts(world, build, settings)).await.unwrap()
}

/// Orders of four events each, on the partition of their number.
fn records(prefix: &str, orders: usize, partitions: usize) -> Vec<TestRecord> {
    let of = |number: usize| {
        life(&format!("{prefix}-{number}"), 4)
            .into_iter()
            .map(move |event| event.record_on((number % partitions) as i32))
    };
    (0..orders).flat_map(of).collect()
}

/// A world whose topic held ten orders, all of them consumed.
async fn consumed_world(partitions: usize, settings: &[(&str, &str)]) -> (World, Instance) {
    let world = World::new(partitions as i32).await;
    let instance = world.start_with(settings).await;
    world.publish(records("old", 10, partitions)).await;
    world.until_consumed(40).await;
    (world, instance)
}

fn missing(seen: &Preflight) -> Vec<(i32, i64, i64)> {
    let Outlook::Truncated { missing, is_compacted: false } = &seen.outlook else { panic!("{seen:?}") };
    missing.iter().map(|one| (one.partition.0, one.stretch.from.0, one.stretch.to.0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_what_the_build_was_made_from_is_told_by_partition_and_range() {
    let (world, live) = consumed_world(2, &[]).await;
    let before = look(&world, 1, &[]).await;
    assert_eq!((&before.outlook, before.records), (&Outlook::Whole, 40));
    let on_disk = "select sum(pg_total_relation_size(('orders_1.' || tablename)::regclass)) from pg_tables \
                   where schemaname = 'orders_1'";
    assert_eq!(before.bytes, world.number(on_disk).await);
    assert!(before.bytes > 8 * 8_192, "{before:?}");

    world.truncate(1, 7).await;
    let after = look(&world, 1, &[]).await;
    assert_eq!((missing(&after), after.records), (vec![(1, 0, 7)], 33));
    assert_eq!([after.outlook.may_begin(false), after.outlook.may_begin(true)], [false, true]);
    // As where most offsets hold control records: the build's own rows tell how far back it goes.
    let few = "update projection_progress set consumed = 3, applied = 3 where partition = 1";
    world.sql.batch_execute(few).await.unwrap();
    assert_eq!(missing(&look(&world, 1, &[]).await), [(1, 0, 7)]);
    live.stop().await;

    // Whoever accepts it gets a build that has lost nothing of what it was made from.
    builds::create(&world.sql, BuildId::new("orders", 2), &TABLES).await.unwrap();
    registrations::all()[0].load(parts(&world, 2, &[]), 100_000_000).await.unwrap();
    let next = look(&world, 2, &[]).await;
    assert_eq!((&next.outlook, next.records), (&Outlook::Whole, 33));
    world.truncate(1, 8).await;
    assert_eq!(missing(&look(&world, 2, &[]).await), [(1, 7, 8)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_anew_makes_no_rebuild() {
    for settings in [&[][..], &[NO_IDS][..]] {
        let (mut world, live) = consumed_world(1, settings).await;
        live.stop().await;
        world.recreate_topic(1).await;
        let seen = look(&world, 1, settings).await;
        assert_eq!(seen.outlook.code(), Some("log_identity_changed"), "{seen:?}");
        // The same records, and more.
        world.publish([records("old", 10, 1), records("new", 10, 1)].concat()).await;
        let seen = look(&world, 1, settings).await;
        assert_eq!((seen.outlook.code(), seen.records), (Some("log_identity_changed"), 80), "{seen:?}");
        assert!(!seen.outlook.may_begin(true));
        world.delete_topic(&world.topic).await;
        crate::support::until("the topic is gone", crate::support::PATIENCE, || async {
            let seen = look(&world, 1, settings).await;
            (seen.outlook == Outlook::AnotherLog("the topic does not exist".to_owned())).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_another_topic_and_a_compacted_one_are_told() {
    let (world, live) = consumed_world(1, &[]).await;
    live.stop().await;
    let other = format!("{}.other", world.topic);
    world.create_topic(&other, 1, &[]).await;
    let mut elsewhere = parts(&world, 1, &[]);
    elsewhere.settings.topic = other;
    let seen = preflight("orders", &elsewhere).await.unwrap();
    assert_eq!(seen.outlook.code(), Some("source_changed"), "{seen:?}");

    let servers = servers::shared();
    let world = World::on(&servers.kafka, &servers.database, 1, &[("cleanup.policy", "compact,delete")]).await;
    assert_eq!(look(&world, 1, &[]).await.outlook, Outlook::Compacted("compact,delete".to_owned()));
    let meant = look(&world, 1, &[("STREAMVIEW_KAFKA__ALLOW_COMPACTED", "true")]).await;
    assert_eq!(meant.outlook, Outlook::Truncated { missing: Vec::new(), is_compacted: true });
    assert_eq!(meant.outlook.code(), Some("history_truncated"));
}
