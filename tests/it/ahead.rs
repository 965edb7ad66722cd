//! What speaks against a rebuild is the answer to the call that asks for it, as far as that can be told in seconds.

use serde_json::{Value, json};

use crate::support::orders::{TestEvent, life};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_has_lost_records_is_refused_at_once_with_what_is_missing_and_the_choices() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish((0..3).flat_map(|n| life(&format!("o-{n}"), 4)).map(|event| event.record_on(0))).await;
    world.until_consumed(12).await;
    let body = json!({ "reason": "whole", "cutover": "manual" });
    let once = [("idempotency-key", "while-it-was-whole")];
    let first: Value = instance.post_as("/ops/views/rebuild", &body, &once).await.json().await.unwrap();
    let id = first["id"].as_i64().unwrap();
    until("it is ready", PATIENCE, || async {
        (instance.json(&format!("/ops/operations/{id}")).await["phase"] == "ready").then_some(())
    })
    .await;
    world.truncate(0, 5).await;
    // Begun already: the same answer, whatever has become of the log.
    let again = instance.post_as("/ops/views/rebuild", &body, &once).await;
    assert_eq!((again.status().as_u16(), &again.headers()["idempotent-replayed"]), (202, &"true".parse().unwrap()));
    // One at a time goes before all else.
    let refused = instance.posted("/ops/views/rebuild", &json!({ "reason": "another" }), 409).await;
    assert_eq!((&refused["code"], &refused["operationId"]), (&json!("operation_running"), &json!(id)), "{refused}");
    instance.posted(&format!("/ops/operations/{id}/cancel"), &json!({}), 202).await;
    let is_over = async || instance.json(&format!("/ops/operations/{id}")).await["state"] == "cancelled";
    until("it is called off", PATIENCE, || async { is_over().await.then_some(()) }).await;

    let refused = instance.posted("/ops/views/rebuild", &json!({ "reason": "truncated" }), 409).await;
    assert_eq!(refused["code"], "history_truncated", "{refused}");
    assert_eq!(refused["missing"], json!([{ "partition": 0, "fromOffset": 0, "toOffset": 5 }]), "{refused}");
    assert_eq!(refused["isCompacted"], false);
    assert!(refused["choices"].to_string().contains("acceptTruncated: true"), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("partition 0: offsets 0 up to, but not with, 5"), "{refused}");
    let begun = world.number("select count(*) from operations").await;
    assert_eq!(begun, 1, "nothing was begun");
    let accepted = json!({ "reason": "truncated", "acceptTruncated": true });
    instance.posted("/ops/views/rebuild", &accepted, 202).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_is_refused_at_once() {
    let mut world = World::new(1).await;
    let instance = world.start().await;
    world.publish(life("o-1", 4).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    let other = format!("{}.other", world.topic);
    world.create_topic(&other, 1, &[]).await;
    let elsewhere = world.launch(&[("STREAMVIEW_VIEWS__ORDERS__TOPIC", &other)]);
    elsewhere.until_halted("source_changed").await;
    let refused = elsewhere.posted("/ops/views/rebuild", &json!({ "reason": "another topic" }), 409).await;
    assert_eq!(refused["code"], "source_changed", "{refused}");
    assert!(refused["choices"].to_string().contains("streamview source moved"), "{refused}");
    elsewhere.stop().await;
    world.recreate_topic(1).await;
    let refused = instance.posted("/ops/views/rebuild", &json!({ "reason": "created anew" }), 409).await;
    assert_eq!(refused["code"], "log_identity_changed", "{refused}");
    assert_eq!(world.number("select count(*) from operations").await, 0);
}

/// Where Kafka does not answer nobody waits for it: the operation tells.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_in_time_is_told_by_the_operation() {
    let world = World::new(1).await;
    let nowhere = world.launch(&[("STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")]);
    nowhere.until_serving().await;
    let asked = std::time::Instant::now();
    let operation = nowhere.posted("/ops/views/rebuild", &json!({ "reason": "no Kafka" }), 202).await;
    assert!(asked.elapsed().as_secs() < 20, "{:?}", asked.elapsed());
    assert_eq!(operation["phase"], "preflight", "{operation}");
}
