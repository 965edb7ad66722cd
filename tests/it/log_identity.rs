//! The log is not ours any more, or not all of it: the view halts rather than mix two histories.

use serde_json::json;

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, life, status_changed};
use crate::support::servers;
use crate::support::world::{TestRecord, World};

/// Records of `orders` orders, four each.
fn records(prefix: &str, orders: usize) -> Vec<TestRecord> {
    (0..orders).flat_map(|number| life(&format!("{prefix}-{number}"), 4)).map(|event| event.record()).collect()
}

/// Events applied so far, by the prefix of their order.
async fn applied(world: &World, prefix: &str) -> i64 {
    world.number(&format!("select count(*) from order_events_view where order_id like '{prefix}-%'")).await
}

/// A world whose topic held ten orders, all of them consumed.
async fn consumed_world(partitions: i32, settings: &[(&str, &str)]) -> (World, Instance) {
    let world = World::new(partitions).await;
    let instance = world.start_with(settings).await;
    world.publish(records("old", 10)).await;
    world.until_consumed(40).await;
    (world, instance)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_while_running_halts_the_view_and_nothing_of_it_is_applied() {
    let (mut world, instance) = consumed_world(2, &[]).await;

    world.recreate_topic(2).await;
    world.publish(records("new", 40)).await;

    instance.until_halted("log_identity_changed").await;
    assert_eq!((applied(&world, "old").await, applied(&world, "new").await), (40, 0));
    assert_eq!(world.consumed().await, 40);
    // A restart does not wash it away.
    instance.kill_hard();
    let restarted = world.launch(&[]);
    restarted.until_halted("log_identity_changed").await;
    assert_eq!((applied(&world, "new").await, world.consumed().await), (0, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_while_stopped_halts_the_view_and_nothing_of_it_is_applied() {
    let (mut world, instance) = consumed_world(2, &[]).await;
    instance.kill_hard();

    world.recreate_topic(2).await;
    world.publish(records("new", 40)).await;
    let restarted = world.launch(&[]);

    restarted.until_halted("log_identity_changed").await;
    assert_eq!((applied(&world, "old").await, applied(&world, "new").await), (40, 0));
    assert_eq!(world.consumed().await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_topic_ids_the_last_record_gives_a_recreated_topic_away() {
    const NO_IDS: [(&str, &str); 1] = [("STREAMVIEW_KAFKA__TOPIC_IDS", "false")];
    let (mut world, instance) = consumed_world(1, &NO_IDS).await;
    assert_eq!(world.number("select count(*) from projection_progress where topic_id is not null").await, 0);
    instance.kill_hard();

    world.recreate_topic(1).await;
    // The same records, and more: only their timestamps tell.
    world.publish([records("old", 10), records("new", 10)].concat()).await;
    let restarted = world.launch(&NO_IDS);

    restarted.until_halted("log_identity_changed").await;
    assert_eq!((applied(&world, "new").await, world.consumed().await), (0, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_lost_while_stopped_halt_the_view() {
    let (world, instance) = consumed_world(1, &[]).await;
    instance.kill_hard();

    world.publish(records("new", 10)).await;
    world.truncate(0, 60).await;
    let restarted = world.launch(&[]);

    restarted.until_halted("log_truncated").await;
    assert_eq!((applied(&world, "new").await, world.consumed().await), (0, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halted_view_comes_back_without_a_restart_once_an_operator_has_skipped_the_hole() {
    let (world, instance) = consumed_world(1, &[]).await;
    instance.kill_hard();
    world.publish(records("new", 10)).await;
    world.truncate(0, 60).await;
    let restarted = world.launch(&[]);
    restarted.until_halted("log_truncated").await;

    let skip = |to: i64| {
        let body = json!({ "from": 40, "to": to, "reason": "retention was shorter than the outage" });
        restarted.http.post(restarted.url("/ops/partitions/0/skip-to")).json(&body).send()
    };
    assert_eq!(skip(81).await.unwrap().status().as_u16(), 400, "beyond the end");
    assert_eq!(skip(60).await.unwrap().status().as_u16(), 200);

    world.until_consumed(60).await;
    restarted.until_ready().await;
    restarted.until_running().await;
    // Orders whose beginning is lost wait for it, visibly; 60 is the first record of an order.
    assert_eq!((applied(&world, "old").await, applied(&world, "new").await), (40, 20));
    assert_eq!(world.conservation().await, [60, 60, 0, 0, 0, 0, 0]);
    // It was the log that stopped it, and it does not any more.
    assert_eq!(skip(61).await.unwrap().status().as_u16(), 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_halts_the_view_unless_that_is_meant() {
    let servers = servers::shared();
    for policy in ["compact", "compact,delete"] {
        let world = World::on(&servers.kafka, &servers.database, 1, &[("cleanup.policy", policy)]).await;
        world.publish(records("new", 2)).await;

        let instance = world.launch(&[]);
        instance.until_halted("topic_compacted").await;
        assert_eq!(world.consumed().await, 0);
        drop(instance);

        let _meant = world.start_with(&[("STREAMVIEW_KAFKA__ALLOW_COMPACTED", "true")]).await;
        world.until_consumed(8).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_lost_ahead_of_a_sleeping_reader_halt_the_view() {
    let (world, instance) = consumed_world(1, &[]).await;
    instance.signal("STOP");
    instance.until_stopped().await;

    // The fetch that was under way may still bring the first record; nobody asks for the others.
    let mut records: Vec<_> = records("new", 10).into_iter().collect();
    let others = records.split_off(1);
    world.publish(records).await;
    world.publish(others).await;
    world.truncate(0, 60).await;
    instance.signal("CONT");

    instance.until_halted("log_truncated").await;
    let next_offset = world.number("select next_offset from projection_progress").await;
    assert!(next_offset < 60, "nothing behind the hole is applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_lost_behind_a_paused_partition_halt_the_view() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__MAX_PARKED_PER_KEY", "1")]).await;
    let ahead: Vec<TestEvent> = [3, 4].map(|sequence| status_changed("old-1", sequence, "Paid")).into();
    world.publish([created("old-1").record(), ahead[0].record(), ahead[1].record()]).await;
    world.until_consumed(2).await;

    world.publish(records("new", 10)).await;
    world.truncate(0, 20).await;

    instance.until_halted("log_truncated").await;
    assert_eq!((applied(&world, "new").await, world.consumed().await), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_of_what_is_consumed_disturbs_nobody() {
    let (world, instance) = consumed_world(1, &[]).await;
    world.truncate(0, 40).await;
    world.publish(records("new", 5)).await;
    world.until_consumed(60).await;

    instance.kill_hard();
    world.truncate(0, 60).await;
    let restarted = world.start().await;
    world.publish(records("newer", 5)).await;
    world.until_consumed(80).await;

    restarted.until_running().await;
    let counts = (applied(&world, "old").await, applied(&world, "new").await, applied(&world, "newer").await);
    assert_eq!(counts, (40, 20, 20));
}
