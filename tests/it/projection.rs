//! The rules of the sequence, from a record to a GET.

use serde_json::Value;

use crate::support::orders::{created, item_added, life, oracle, status_changed, stored};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_of_events_becomes_the_order_that_rest_serves() {
    let world = World::new(3).await;
    let instance = world.start().await;
    let events = life("o-1", 5);
    world.publish(events.iter().map(|event| event.record())).await;

    let order = instance.order_at("o-1", 5).await;

    assert_eq!(order["status"], "Packed");
    assert_eq!((&order["totalNet"], &order["totalGross"]), (&Value::from("28.68"), &Value::from("29.29")));
    assert_eq!(order["items"].as_array().unwrap().len(), 3);
    assert_eq!(order["held"], Value::Null);
    assert_eq!(stored(&world).await, oracle(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_leaves_the_state_unchanged_and_is_counted_once() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 3);
    world.publish(events.iter().map(|event| event.record())).await;
    let before = instance.order_at("o-1", 3).await;
    assert_eq!(instance.metric("streamview_duplicates_total", &[]).await, 0.0);

    world.publish([events[2].record()]).await;
    world.until_consumed(4).await;

    assert_eq!(instance.json("/orders/o-1").await, before);
    until("the metric follows", PATIENCE, || async {
        (instance.metric("streamview_duplicates_total", &[]).await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_ahead_of_a_gap_is_held_until_the_missing_one_arrives() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = [created("o-1"), item_added("o-1", 2), status_changed("o-1", 3, "Paid")];
    world.publish([events[0].record(), events[2].record()]).await;
    world.until_consumed(2).await;

    let held = instance.json("/orders/o-1").await;
    assert_eq!((&held["lastEventSequence"], &held["status"]), (&Value::from(1), &Value::from("Created")));
    assert_eq!(held["held"]["reason"], "gap");
    assert_eq!((&held["held"]["missingFrom"], &held["held"]["parkedCount"]), (&Value::from(2), &Value::from(1)));
    until("the metric follows", PATIENCE, || async {
        (instance.metric("streamview_out_of_order_total", &["gap"]).await == 1.0).then_some(())
    })
    .await;

    world.publish([events[1].record()]).await;
    let drained = instance.order_at("o-1", 3).await;

    assert_eq!((&drained["status"], &drained["held"]), (&Value::from("Paid"), &Value::Null));
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.conservation().await, [3, 3, 0, 0, 0, 0, 0]);
}
