//! A build belongs to one log: what else is put before it halts the view, until an operator says that the log was moved.

use std::process::Output;

use serde_json::{Value, json};
use streamview_lab::servers::{KafkaOptions, KafkaServer};
use tokio_postgres::types::ToSql;

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life, status_changed};
use crate::support::world::{KEPT_FOR_EVER, TestRecord, World, connect};
use crate::support::{PATIENCE, until};

const TOPIC: &str = "STREAMVIEW_VIEWS__ORDERS__TOPIC";
const KAFKA: &str = "STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS";

fn records(events: &[TestEvent]) -> Vec<TestRecord> {
    events.iter().map(TestEvent::record).collect()
}

async fn halt(instance: &Instance) -> Value {
    instance.json("/ops/consumer").await["views"][0]["halt"].clone()
}

fn command(world: &World, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_streamview"));
    command.args(arguments).envs(world.environment()).envs(settings.iter().copied());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn status_of(world: &World, order_id: &str) -> String {
    world.row(&format!("select status from orders_view where order_id = '{order_id}'")).await.get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_topic_halts_the_view_and_nothing_of_it_is_mixed_in() {
    let world = World::new(2).await;
    let instance = world.start().await;
    world.publish(records(&[created("x-1"), created("x-2")])).await;
    world.until_consumed(2).await;
    instance.stop().await;
    let other = format!("{}.other", world.topic);
    world.create_topic(&other, 2, &[]).await;
    // As if it were the same order's next event.
    world.publish_to(&other, records(&[created("x-1"), status_changed("x-2", 2, "Stolen")])).await;

    let instance = world.launch(&[(TOPIC, &other)]);

    instance.until_halted("source_changed").await;
    let halt = halt(&instance).await;
    let (detail, next) = (halt["detail"].as_str().unwrap(), halt["nextStep"].as_str().unwrap());
    assert!(detail.contains(&format!("made from topic {} of cluster ", world.topic)), "{halt}");
    assert!(detail.contains(&format!("and this is topic {other} of cluster ")), "{halt}");
    assert!(next.contains("streamview source moved") && next.contains("begin anew from the other topic"), "{halt}");
    assert_eq!((status_of(&world, "x-2").await.as_str(), world.consumed().await), ("Created", 2));
    instance.kill_hard();
    // The old one is the right one still.
    world.publish(records(&[status_changed("x-2", 2, "Paid")])).await;
    let instance = world.start().await;
    assert_eq!(instance.order_at("x-2", 2).await["status"], "Paid");
    assert_eq!(world.conservation().await, [3, 3, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_topic_of_another_cluster_halts_the_view() {
    let world = World::new(1).await;
    let ids = ("STREAMVIEW_KAFKA__TOPIC_IDS", "false");
    let instance = world.start_with(&[ids]).await;
    world.publish(records(&life("x-1", 3))).await;
    world.until_consumed(3).await;
    instance.stop().await;
    let server = std::thread::spawn(|| KafkaServer::start(KafkaOptions::default()).unwrap()).join().unwrap();
    let elsewhere = World::on(&server.bootstrap(), &crate::support::servers::shared().database, 1, &[]).await;
    elsewhere.create_topic(&world.topic, 1, &[]).await;
    elsewhere.publish_to(&world.topic, records(&life("x-1", 5))).await;

    // Neither a topic id nor a position gives it away.
    world.sql.batch_execute("update projection_progress set anchor_crc = null").await.unwrap();
    let instance = world.launch(&[ids, (KAFKA, &server.bootstrap())]);

    instance.until_halted("source_changed").await;
    assert_eq!(world.consumed().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_moved_with_its_offsets_goes_on_once_an_operator_says_so() {
    let world = World::of_old_records(1).await;
    let instance = world.start().await;
    let events = life("x-1", 4);
    let mut broken = item_added("x-2", 2).record();
    broken.payload = Some(b"{ broken".to_vec());
    let mut log = records(&events[..2]);
    // Parked, refused and held: all of it is known by its position.
    log.extend([created("x-2").record(), broken, item_added("x-2", 3).record(), item_added("x-3", 2).record()]);
    // A copy has the times of its original.
    let log = log.into_iter().map(|record| (record, Some(1_767_225_600_000)));
    world.publish_at(&world.topic, log.clone()).await;
    world.until_consumed(6).await;
    instance.stop().await;
    let moved = format!("{}.moved", world.topic);
    world.create_topic(&moved, 1, &[KEPT_FOR_EVER]).await;
    world.publish_at(&moved, log).await;
    world.publish_to(&moved, records(&events[2..])).await;
    world.publish_to(&moved, [created("x-3").record()]).await;

    let refused = command(&world, &["source", "moved", "--from", "nobody", "--reason", "x"], &[(TOPIC, &moved)]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("no build of view orders is made from topic nobody"), "{}", said(&refused));
    let arguments = ["source", "moved", "--from", &world.topic, "--reason", "renamed, OPS-1", "--actor", "eve"];
    let done = command(&world, &arguments, &[(TOPIC, &moved)]);
    assert!(done.status.success(), "{}", said(&done));
    let shown = said(&command(&world, &["source", "show"], &[(TOPIC, &moved)]));
    assert!(shown.contains("renamed, OPS-1") && shown.contains("eve") && shown.contains(&moved), "{shown}");

    let instance = world.start_with(&[(TOPIC, &moved)]).await;
    instance.order_at("x-1", 4).await;
    instance.order_at("x-3", 2).await;
    assert_eq!(world.conservation().await.iter().skip(1).sum::<i64>(), world.consumed().await);
    assert_eq!(world.consumed().await, 9, "nothing was read twice");
    for table in ["projection_progress", "held_keys", "parked_events", "dead_letters"] {
        let old = format!("select count(*) from {table} where topic = '{}'", world.topic);
        assert_eq!(world.number(&old).await, 0, "{table}");
    }
    // The letter can still be answered.
    let letter = world.number("select id from dead_letters").await;
    let skip = serde_json::json!({ "reason": "given up" });
    instance.posted(&format!("/ops/dead-letters/{letter}/skip"), &skip, 202).await;
    instance.order_at("x-2", 3).await;
    // Whoever starts with the old topic does not undo it.
    instance.stop().await;
    world.launch(&[]).until_halted("source_changed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_not_true_halts_the_view_and_applies_nothing() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish(records(&life("x-1", 3))).await;
    world.until_consumed(3).await;
    instance.stop().await;
    let other = format!("{}.other", world.topic);
    world.create_topic(&other, 1, &[]).await;
    world.publish_to(&other, records(&life("y-1", 5))).await;

    let arguments = ["source", "moved", "--from", &world.topic, "--reason", "a mistake"];
    let done = command(&world, &arguments, &[(TOPIC, &other)]);
    assert!(done.status.success(), "{}", said(&done));

    let instance = world.launch(&[(TOPIC, &other)]);
    instance.until_halted("log_identity_changed").await;
    assert_eq!(world.consumed().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_has_consumed_nothing_is_bound_anew() {
    let world = World::new(1).await;
    let wrong = format!("{}.wrong", world.topic);
    world.create_topic(&wrong, 1, &[]).await;
    let instance = world.start_with(&[(TOPIC, &wrong)]).await;
    until("it is bound", PATIENCE, || async {
        let bound = format!("select count(*) from view_builds where source_topic = '{wrong}'");
        (world.number(&bound).await == 1).then_some(())
    })
    .await;
    instance.stop().await;

    let instance = world.start().await;
    world.publish(records(&life("x-1", 3))).await;
    instance.order_at("x-1", 3).await;
    let bound = "select count(*) from view_builds where source_cluster is not null and source_topic_id is not null";
    assert_eq!(world.number(bound).await, 1);
    instance.stop().await;
    world.launch(&[(TOPIC, &wrong)]).until_halted("source_changed").await;
}

/// Between the look at the binding and the taking of a partition somebody else may bind an empty build to another topic.
#[tokio::test(flavor = "multi_thread")]
async fn no_partition_is_taken_of_a_build_that_was_bound_to_another_topic_meanwhile() {
    const ACQUIRE: &str = include_str!("../../src/store/sql/acquire_partition.sql");
    let world = World::new(1).await;
    let bind = |topic: &str| format!("update view_builds set source_topic = '{topic}' where view = 'orders'");
    let (nobody, rules): (Option<&str>, _) = (None, json!({ "history": "payload" }));
    let acquire = async || {
        let place: [&(dyn ToSql + Sync); 6] = [&"orders", &1_i32, &world.topic, &nobody, &0_i32, &0_i64];
        let owner: [&(dyn ToSql + Sync); 3] = [&"me", &1_i32, &rules];
        world.sql.query(ACQUIRE, &[&place[..], &owner[..]].concat()).await
    };

    world.sql.batch_execute(&bind("elsewhere")).await.unwrap();
    assert!(acquire().await.unwrap().is_empty());
    world.sql.batch_execute(&bind(&world.topic)).await.unwrap();
    assert_eq!(acquire().await.unwrap().len(), 1);
    // Nor of one that means something else than its owner goes by.
    for (change, taken) in [
        ("rules = '{\"history\": \"off\"}'", 0),
        ("rules = '{\"history\": \"payload\"}'", 1),
        ("projection_version = 2", 0),
        ("projection_version = 1", 1),
    ] {
        world.sql.batch_execute(&format!("update view_builds set {change}")).await.unwrap();
        assert_eq!(acquire().await.unwrap().len(), taken, "{change}");
    }

    // Who binds has the row locked: whether it is ours is known when they are done.
    let binder = connect(&world.database).await;
    binder.batch_execute(&format!("begin; {}", bind("elsewhere"))).await.unwrap();
    let (taken, ()) = tokio::join!(acquire(), async {
        until("the taking waits for the lock", PATIENCE, || async {
            let waiting =
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
            let row = binder.query_one(waiting, &[]).await.unwrap();
            (row.get::<_, i64>(0) > 0).then_some(())
        })
        .await;
        binder.batch_execute("commit").await.unwrap();
    });
    assert!(taken.unwrap().is_empty());
}
