//! What a rebuild finds before any reader does: a mistake in the fold, another setting; and who goes by the new rules after it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use streamview::registrations;

use crate::comparison::values;
use crate::conformance::Service;
use crate::support::flawed;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life, oracle, status_changed, stored};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

const RATE: &str = "STREAMVIEW_TAX__DEFAULT_RATE";
const FIRST: &str = "STREAMVIEW_PROJECTOR__FIRST_SEQUENCE";

async fn active(world: &World) -> i64 {
    world.number("select build::bigint from view_builds where active").await
}

/// Differing keys and columns of an operation's comparison.
fn found(operation: &Value) -> (Vec<&str>, BTreeMap<String, i64>) {
    let comparison = &operation["comparison"];
    let keys = comparison["sample"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap()).collect();
    (keys, serde_json::from_value(comparison["columns"].clone()).unwrap())
}

/// The fold has a mistake, and nobody has raised its version: what would change is told before any reader sees it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_a_fold_is_named_by_orders_and_columns_and_waits_for_a_word_and_is_taken_back() {
    let world = World::new(2).await;
    let right = || registrations::all().remove(0);
    // Only orders to which something was added are touched by it.
    let mut events: Vec<TestEvent> = Vec::new();
    for id in ["o-1", "o-3", "o-5"] {
        events.extend(life(id, 4));
    }
    for id in ["o-2", "o-4"] {
        events.extend([created(id), status_changed(id, 2, "Paid")]);
    }
    let sent = events.len() as i64;
    let service = Service::start(&world, right()).await;
    world.publish(events.iter().map(TestEvent::record)).await;
    world.until_consumed(sent).await;
    service.stop().await;
    let expected = oracle(&events);

    let service = Service::start(&world, flawed::registration()).await;
    let begun = service.post("/ops/views/rebuild", &json!({ "reason": "a better fold" })).await;
    let ready = service.until_operation(&begun["id"], "ready", |operation| operation["phase"] == "ready").await;
    let (keys, columns) = found(&ready);
    assert_eq!(keys, ["o-1", "o-3", "o-5"], "{ready}");
    let named = [("totalGross", 3), ("items[].grossLineTotal", 3)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(columns, named.into(), "{ready}");
    let first = json!({
        "totalGross": values(json!("19.30"), json!("19.31")),
        "items[2].grossLineTotal": values(json!("9.99"), json!("10.00")),
    });
    assert_eq!(ready["comparison"]["sample"][0]["columns"], first, "{ready}");
    assert_eq!(ready["comparison"]["explainedBy"], json!([]), "{ready}");
    let waits = ready["waitingFor"].as_str().unwrap();
    assert!(waits.contains("(items[].grossLineTotal in 3, totalGross in 3)"), "{waits}");
    assert_eq!((&ready["state"], active(&world).await), (&json!("running"), 1));
    assert_eq!(stored(&world).await, expected, "no reader sees it");

    // Somebody says so all the same, and regrets it.
    service.post(&format!("/ops/operations/{}/cutover", begun["id"]), &json!({})).await;
    service.until_done(&begun["id"]).await;
    assert_eq!(service.json("/orders/o-1").await["totalGross"], "19.31");
    assert_ne!(stored(&world).await, expected);
    let back = service.post("/ops/views/orders/rollback", &json!({ "reason": "a cent too much" })).await;
    service.until_done(&back["id"]).await;
    assert_eq!(stored(&world).await, expected);
    assert_eq!(service.json("/orders/o-1").await["totalGross"], "19.30");
    service.stop().await;

    // Mended: nothing differs, and nobody has to say a word.
    let service = Service::start(&world, right()).await;
    let begun = service.post("/ops/views/rebuild", &json!({ "reason": "mended" })).await;
    let done = service.until_done(&begun["id"]).await;
    assert_eq!((&done["comparison"]["equal"], &done["waitingFor"]), (&json!(5), &Value::Null), "{done}");
    assert_eq!(active(&world).await, 3);
    events.extend([item_added("o-2", 3), item_added("o-1", 5)]);
    world.publish(events[events.len() - 2..].iter().map(TestEvent::record)).await;
    until("both events are applied", PATIENCE, || async { (stored(&world).await == oracle(&events)).then_some(()) })
        .await;
    service.stop().await;
}

/// Rebuilds, and gives the operation when it is over.
async fn rebuilt(instance: &Instance, reason: &str) -> Value {
    let begun = instance.posted("/ops/views/rebuild", &json!({ "reason": reason }), 202).await;
    let path = format!("/ops/operations/{}", begun["id"]);
    let over = until("the rebuild is over", PATIENCE, || async {
        let operation = instance.json(&path).await;
        assert_ne!(operation["phase"], "ready", "{operation}");
        (operation["state"] != "running").then_some(operation)
    })
    .await;
    assert_eq!(over["state"], "done", "{over}");
    over
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_takes_up_another_setting_and_the_comparison_names_it() {
    let world = World::new(1).await;
    let instance = world.start_with(&[(RATE, "0.19")]).await;
    world.publish([created("plain").record(), created("added").record(), item_added("added", 2).record()]).await;
    instance.order_at("added", 2).await;
    let gross = async |order: &str| total_gross(&world, order).await;
    assert_eq!((gross("plain").await, gross("added").await), ("9.31".to_owned(), "21.20".to_owned()));
    instance.stop().await;

    let instance = world.start_with(&[(RATE, "0.07")]).await;
    // A rate changes amounts. What else differs is told apart, and waits.
    let status = |status: &str| format!("update orders_1.orders set status = '{status}' where order_id = 'added'");
    world.sql.batch_execute(&status("Odd")).await.unwrap();
    let begun = instance.posted("/ops/views/rebuild", &json!({ "reason": "the rate has changed" }), 202).await;
    let path = format!("/ops/operations/{}", begun["id"]);
    let ready = until("the rebuild is ready", PATIENCE, || async {
        let operation = instance.json(&path).await;
        assert_eq!(operation["state"], "running", "{operation}");
        (operation["phase"] == "ready").then_some(operation)
    })
    .await;
    assert_eq!(ready["comparison"]["unexplained"], json!({ "status": 1 }), "{ready}");
    instance.posted(&format!("{path}/cancel"), &json!({}), 202).await;
    until("it is over", PATIENCE, || async { (instance.json(&path).await["state"] == "cancelled").then_some(()) })
        .await;
    world.sql.batch_execute(&status("Created")).await.unwrap();

    let done = rebuilt(&instance, "the rate has changed").await;
    let (keys, columns) = found(&done);
    assert_eq!(keys, ["added"], "{done}");
    let named = [("totalGross", 1), ("items[].grossLineTotal", 1)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(columns, named.into(), "{done}");
    let reason = json!([{ "setting": "tax.default_rate", "old": "0.19", "new": "0.07" }]);
    assert_eq!(done["comparison"]["explainedBy"], reason, "{done}");
    assert_eq!((gross("plain").await, gross("added").await), ("9.31".to_owned(), "20.00".to_owned()));
    world.publish([item_added("plain", 2).record()]).await;
    let plain = instance.order_at("plain", 2).await;
    assert_eq!(plain["totalGross"], "20.00", "{plain}");
    // What it left goes on by its own rule.
    until("the old build has taken it", PATIENCE, || async {
        let query = "select count(*) from orders_1.orders where order_id = 'plain' and total_gross = 21.20";
        (world.number(query).await == 1).then_some(())
    })
    .await;
    instance.stop().await;

    // Whether payloads are kept makes no other rows: it explains nothing.
    let instance = world.start_with(&[(RATE, "0.07"), ("STREAMVIEW_PROJECTOR__HISTORY", "compact")]).await;
    let done = rebuilt(&instance, "smaller").await;
    assert_eq!((&done["comparison"]["equal"], &done["comparison"]["explainedBy"]), (&json!(2), &json!([])), "{done}");
    instance.stop().await;
}

async fn total_gross(world: &World, order: &str) -> String {
    world.row(&format!("select total_gross::text from orders_view where order_id = '{order}'")).await.get(0)
}

/// The desk reads and checks as the projector of the build that readers read does; that changes while the process runs.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_switch_to_other_rules_the_repair_desk_goes_by_them_without_a_restart() {
    let world = World::new(1).await;
    let first = world.start().await;
    world.publish(life("o-1", 2).iter().map(TestEvent::record)).await;
    first.order_at("o-1", 2).await;
    first.stop().await;
    let instance = world.start_with(&[(FIRST, "0")]).await;
    let api = world.launch_command(&["serve", "--only", "api"], &[(FIRST, "0")]);
    api.until_ready().await;
    let zero = TestEvent { sequence: 0, ..created("zero") };
    let broken = TestRecord { payload: Some(b"{ this is no event".to_vec()), ..zero.record() };
    world.publish([broken]).await;
    world.until_consumed(3).await;
    let letter = async || instance.json("/ops/dead-letters").await["items"][0].clone();
    let body = json!({ "reason": "mended", "payload": zero.body, "key": "zero", "sequence": 0 });
    let replace = |letter: &Value| format!("/ops/dead-letters/{}/replace", letter["id"]);
    let of_one = letter().await;
    assert_eq!(of_one["reason"], "invalid_sequence", "{of_one}");
    for desk in [&instance, &api] {
        let refused = desk.posted(&replace(&of_one), &body, 422).await;
        assert_eq!(refused["reason"], "invalid_sequence", "{refused}");
    }

    rebuilt(&instance, "numbers begin at 0").await;
    let of_two = letter().await;
    assert_ne!(of_two["id"], of_one["id"], "{of_two}");
    let asked = json!({ "reason": "mended", "payload": zero.body });
    until("the other process checks by the new rules", PATIENCE, || async {
        let answer = api.post(&replace(&of_two), &json!({ "reason": "x", "payload": { "type": "Odd" } })).await;
        let answer: Value = answer.json().await.unwrap();
        // Refused for what it says, not for its number any more.
        (answer["reason"] != "invalid_sequence").then_some(())
    })
    .await;
    instance.posted(&replace(&of_two), &asked, 202).await;
    until("the order is there", PATIENCE, || async {
        let query = "select count(*) from orders_view where order_id = 'zero' and last_event_sequence = 0";
        (world.number(query).await == 1).then_some(())
    })
    .await;
}
