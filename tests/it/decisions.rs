//! What an operator decides is folded with: at once, after a crash, and in every later build.

use serde_json::json;

use crate::support::instance::Instance;
use crate::support::orders::{created, item_added, life, status_changed, stored};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Decides as the repair API does, but without its rules: `values` are the columns after `view`.
async fn decide(world: &World, columns: &str, values: &str) {
    let statement = format!(
        "begin; select from view_builds where view = 'orders' for update; \
         update projection_progress set decisions = decisions + 1 where view = 'orders'; \
         insert into event_decisions (view, reason, actor, {columns}) values ('orders', 'a test', 'tester', {values}); commit"
    );
    world.sql.batch_execute(&statement).await.unwrap();
}

async fn until_taken(world: &World, decisions: i64) {
    until("the decisions are taken", PATIENCE, || async {
        let taken = "select count(*) from event_decisions where taken_at is not null";
        (world.number(taken).await == decisions).then_some(())
    })
    .await;
}

/// The rows of the live build and of a build that starts from nothing are the same.
async fn assert_rebuilds_alike(world: &World, live: Instance) {
    let before = stored(world).await;
    live.stop().await;
    let _rebuilt = world.rebuild().await;
    assert_eq!(stored(world).await, before, "a rebuild honours the decisions");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_gap_heals_and_a_rebuild_skips_it_too() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let events = life("o-1", 8);
    world.publish(events.iter().filter(|event| !matches!(event.sequence, 3..=5)).map(|event| event.record())).await;
    world.until_consumed(5).await;
    decide(&world, "action, key, sequence, sequence_to", "'skip', 'o-1', 3, 5").await;
    until_taken(&world, 1).await;
    let order = instance.order_at("o-1", 8).await;
    assert!(order["held"].is_null(), "{order}");
    let effects = "select string_agg(sequence || ' ' || effect, ', ' order by sequence) from order_events_view";
    let ledger: String = world.row(effects).await.get(0);
    assert_eq!(ledger, "1 applied, 2 applied, 5 skipped, 6 applied, 7 applied, 8 applied");

    // What was skipped is late now, whoever sends it: the order goes on.
    world.publish([events[3].record(), status_changed("o-1", 9, "Returned").record()]).await;
    assert_eq!(instance.order_at("o-1", 9).await["status"], "Returned");
    assert_rebuilds_alike(&world, instance).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_record_takes_its_place_also_when_the_decision_came_while_nothing_ran() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let mut broken = item_added("o-1", 2).record();
    broken.payload = Some(b"{ broken".to_vec());
    world.publish([created("o-1").record(), broken, item_added("o-1", 3).record()]).await;
    world.until_consumed(3).await;
    instance.stop().await;

    let payload = item_added("o-1", 2).with("qty", json!("7")).body.to_string();
    let letter = world.row("select topic, partition, \"offset\", headers from dead_letters").await;
    let headers: Vec<u8> = letter.get(3);
    let headers: String = headers.iter().map(|byte| format!("{byte:02x}")).collect();
    let (topic, partition, offset): (&str, i32, i64) = (letter.get(0), letter.get(1), letter.get(2));
    let values = format!(
        "'replace', 'o-1', 2, 2, '{topic}', {partition}, {offset}, convert_to('{payload}', 'UTF8'), '\\x{headers}'"
    );
    decide(&world, "action, key, sequence, sequence_to, topic, partition, \"offset\", payload, headers", &values).await;

    let instance = world.start().await;
    let order = instance.order_at("o-1", 3).await;
    assert_eq!((&order["itemCount"], &order["held"]), (&json!(3), &json!(null)), "{order}");
    assert_eq!(order["items"][1]["qty"], "7");
    instance.until_metric("streamview_decisions_taken_total", &["action=\"replace\""], 1.0).await;
    assert_rebuilds_alike(&world, instance).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_cannot_be_folded_with_is_refused_and_the_order_waits_on() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    world.until_consumed(2).await;
    decide(
        &world,
        "action, key, sequence, sequence_to, payload, headers",
        "'replace', 'o-1', 2, 2, convert_to('{\"type\":\"OrderItemAdded\"}', 'UTF8'), ''",
    )
    .await;
    until("the decision is refused", PATIENCE, || async {
        let why: Option<String> = world.row("select refused from event_decisions").await.get(0);
        why
    })
    .await;
    let order = instance.order_at("o-1", 1).await;
    assert_eq!(order["held"]["reason"], "gap", "{order}");
    decide(&world, "action, key, sequence, sequence_to", "'skip', 'o-1', 2, 2").await;
    instance.order_at("o-1", 3).await;
    assert_rebuilds_alike(&world, instance).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_proven_once_every_partition_is_past_its_end() {
    let world = World::new(3).await;
    let instance = world.start().await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    instance.until_metric("streamview_proven_gaps", &[], 1.0).await;
    let proven = "select count(*) from held_keys where proven_at is not null and key = 'o-1'";
    assert_eq!(world.number(proven).await, 1);
    // The missing event comes after all: the gap closes, the next one has to be proven anew.
    world.publish([item_added("o-1", 2).record(), item_added("o-1", 5).record()]).await;
    let order = instance.order_at("o-1", 3).await;
    assert_eq!(order["held"]["reason"], "gap", "{order}");
    until("the new gap is proven", PATIENCE, || async {
        let query = "select count(*) from held_keys where proven_at is not null and missing_from = 4";
        (world.number(query).await == 1).then_some(())
    })
    .await;
}
