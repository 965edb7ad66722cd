//! A view that an operator has paused: nothing is applied in any process until it is resumed, whoever starts, stops or takes
//! over meanwhile; reads go on, and everybody says why nothing moves.

use serde_json::{Value, json};

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const GAUGE: &str = "streamview_view_paused";

async fn consumed(world: &World) -> i64 {
    world.number("select coalesce(sum(consumed), 0) from projection_progress where build = 1").await
}

async fn publish(world: &World, order: &str, events: i64) {
    world.publish(life(order, events).iter().map(TestEvent::record)).await;
}

fn check<'a>(ready: &'a Value, name: &str) -> &'a Value {
    let found = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    found.unwrap_or(&Value::Null)
}

/// Waits until the instance has seen that records wait, and says why.
async fn until_told(instance: &Instance, lag: i64, words: &str) {
    until("records wait, with the reason", PATIENCE, || async {
        let lags = instance.json("/ops/lags").await;
        let partitions = lags["partitions"].as_array()?;
        let waiting: Vec<&Value> = partitions.iter().filter(|partition| partition["lag"] != 0).collect();
        let reason = waiting.first()?["reason"].as_str()?;
        assert!(waiting.iter().all(|partition| partition["verdict"] == "stop"), "{lags}");
        (lags["totalLag"] == lag && reason.contains(words)).then_some(())
    })
    .await;
}

async fn until_over(instance: &Instance, id: i64) -> Value {
    until(&format!("operation {id} is over"), PATIENCE, || async {
        let operation = instance.json(&format!("/ops/operations/{id}")).await;
        (operation["state"] != "running").then_some(operation)
    })
    .await
}

async fn until_phase(instance: &Instance, id: i64, phase: &str) {
    until(&format!("operation {id} is in phase {phase}"), PATIENCE, || async {
        let operation = instance.json(&format!("/ops/operations/{id}")).await;
        assert_eq!(operation["state"], "running", "{operation}");
        (operation["phase"] == phase).then_some(())
    })
    .await;
}

async fn command(world: &World, arguments: &[&str]) -> String {
    let command = world.launch_command(arguments, &[]);
    let status = command.until_ended().await;
    assert!(status.success(), "{arguments:?}: {}", command.log_text());
    command.log_text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_view_stands_still_in_every_process_across_restarts_and_says_so() {
    let world = World::new(2).await;
    let (first, second) = (world.start().await, world.start().await);
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    publish(&world, "o-1", 3).await;
    first.order_at("o-1", 3).await;
    // It waits for its second event.
    world.publish([created("o-2").record(), item_added("o-2", 3).record()]).await;
    world.until_consumed(5).await;
    first.until_metric(GAUGE, &["view=\"orders\""], 0.0).await;

    let body = json!({ "reason": "wrong prices upstream", "actor": "ada" });
    let once = [("idempotency-key", "stop")];
    let answer = first.post_as("/ops/views/orders/pause", &body, &once).await;
    assert_eq!(answer.status(), 200);
    let paused: Value = answer.json().await.unwrap();
    assert_eq!((&paused["view"], &paused["paused"]["actor"]), (&json!("orders"), &json!("ada")), "{paused}");
    publish(&world, "o-3", 8).await;
    publish(&world, "o-4", 8).await;
    let since = paused["paused"]["since"].as_str().unwrap().to_owned();
    let words = format!("paused by ada since {since}: wrong prices upstream");
    for instance in [&first, &second, &api] {
        until_told(instance, 16, &words).await;
        instance.until_metric(GAUGE, &["view=\"orders\""], 1.0).await;
        let ready = instance.readiness().await;
        let check = check(&ready, "paused:orders");
        assert_eq!((&ready["status"], &check["status"]), (&json!("degraded"), &json!("degraded")), "{ready}");
        assert!(check["detail"].as_str().unwrap().contains(&words), "{ready}");
        assert_eq!(instance.json("/ops/views").await["items"][0]["paused"], paused["paused"]);
        assert_eq!(instance.json("/orders/o-1").await["lastEventSequence"], 3, "reads go on");
        let told = "view is paused, nothing is applied until it is resumed";
        assert_eq!(instance.log_text().matches(told).count(), 1, "{}", instance.log_text());
    }
    for instance in [&first, &second] {
        assert_eq!(instance.state().await.0, "running", "it stays in its group");
    }
    assert_eq!(consumed(&world).await, 5);

    // Again: what is. The same call: the same answer. Another one with the same key is refused.
    let again = second.posted("/ops/views/orders/pause", &json!({ "reason": "me too", "actor": "eve" }), 200).await;
    assert_eq!(again, paused);
    let replayed = second.post_as("/ops/views/orders/pause", &body, &once).await;
    assert_eq!(replayed.headers()["idempotent-replayed"], "true");
    assert_eq!(replayed.json::<Value>().await.unwrap(), paused);
    assert_eq!(second.post_as("/ops/views/orders/resume", &body, &once).await.status(), 422);
    assert_eq!(second.post("/ops/views/orders/pause", &json!({})).await.status(), 400);
    assert_eq!(second.post("/ops/views/customers/pause", &body).await.status(), 404);

    // A decision is taken, and waits.
    let skipped = first.posted("/ops/held/o-2/skip", &json!({ "reason": "it never was" }), 202).await;
    assert_eq!(skipped["decisions"][0]["status"], "pending", "{skipped}");

    // Nobody who starts knows better.
    first.kill_hard();
    second.stop().await;
    let (first, second) = (world.start().await, world.start().await);
    for instance in [&first, &second] {
        until_told(instance, 16, &words).await;
    }
    assert_eq!(consumed(&world).await, 5);
    assert_eq!(first.json("/orders/o-2").await["lastEventSequence"], 1);

    let resumed = second.posted("/ops/views/orders/resume", &json!({ "reason": "mended" }), 200).await;
    assert_eq!(resumed, json!({ "view": "orders", "paused": null }));
    first.order_at("o-3", 8).await;
    first.order_at("o-4", 8).await;
    first.order_at("o-2", 3).await;
    until("everything is applied", PATIENCE, || async { (consumed(&world).await == 21).then_some(()) }).await;
    for instance in [&first, &second, &api] {
        instance.until_metric(GAUGE, &["view=\"orders\""], 0.0).await;
        assert_eq!(check(&instance.readiness().await, "paused:orders"), &Value::Null);
    }
    let again = first.posted("/ops/views/orders/resume", &json!({ "reason": "mended" }), 200).await;
    assert_eq!(again, resumed);
    let rows = "select count(*) from view_pauses where actor = 'ada' and resume_reason = 'mended' and resumed_by = 'anonymous'";
    assert_eq!((world.number(rows).await, world.number("select count(*) from view_pauses").await), (1, 1));
    assert_eq!(world.conservation().await[0], 21);
}

/// It has looked, and seen no pause; then the view is paused, and only then it becomes the owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_beside_a_pause_gives_its_partitions_to_nobody() {
    let world = World::new(1).await;
    publish(&world, "o-1", 3).await;
    let sleeping = world.launch(&[("STREAMVIEW_STOP_AT", "part.acquiring")]);
    sleeping.until_stopped().await;
    let told = command(&world, &["pause", "--reason", "to see it stand still", "--actor", "ada"]).await;
    assert!(told.contains("view orders is paused by ada since ") && told.contains(": to see it stand still"), "{told}");
    sleeping.signal("CONT");
    sleeping.until_ready().await;
    until_told(&sleeping, 3, "paused by ada").await;
    let owner = "select sum(owner_epoch) from projection_progress";
    assert_eq!((consumed(&world).await, world.number(owner).await), (0, 1), "it had become the owner");
    let told = command(&world, &["resume", "orders", "--reason", "seen"]).await;
    assert!(told.contains("view orders goes on"), "{told}");
    sleeping.order_at("o-1", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_waits_while_its_view_is_paused_and_none_is_begun() {
    let world = World::new(1).await;
    let instance = world.start().await;
    publish(&world, "o-1", 5).await;
    instance.order_at("o-1", 5).await;
    let (pause, resume) = ("/ops/views/orders/pause", "/ops/views/orders/resume");
    let why = json!({ "reason": "a pause", "actor": "ada" });
    let begin = async |cutover: &str| {
        let body = json!({ "reason": "a pause", "cutover": cutover });
        instance.posted("/ops/views/rebuild", &body, 202).await["id"].as_i64().unwrap()
    };

    instance.posted(pause, &why, 200).await;
    for path in ["/ops/views/rebuild", "/ops/views/orders/rollback"] {
        let refused = instance.posted(path, &why, 409).await;
        let found = (&refused["code"], &refused["paused"]["actor"]);
        assert_eq!(found, (&json!("view_paused"), &json!("ada")), "{path}: {refused}");
    }
    instance.posted(resume, &why, 200).await;

    // The word to switch is heard, and waits; the word to stop does not.
    for (word, state, active) in [("cancel", "cancelled", 1), ("cutover", "done", 3)] {
        let id = begin("manual").await;
        until_phase(&instance, id, "ready").await;
        instance.posted(pause, &why, 200).await;
        instance.posted(&format!("/ops/operations/{id}/{word}"), &json!({}), 202).await;
        if word == "cutover" {
            publish(&world, "o-2", 4).await;
            until_told(&instance, 4, "paused by ada").await;
            let operation = instance.json(&format!("/ops/operations/{id}")).await;
            assert_eq!((&operation["state"], &operation["phase"]), (&json!("running"), &json!("ready")), "{operation}");
            instance.posted(resume, &why, 200).await;
        }
        let over = until_over(&instance, id).await;
        assert_eq!(over["state"], state, "{over}");
        instance.posted(resume, &why, 200).await;
        assert_eq!(world.number("select build from view_builds where active").await, active);
    }
    instance.order_at("o-2", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_a_pause_cuts_short_begins_anew_after_it() {
    let world = World::new(2).await;
    publish(&world, "o-1", 5).await;
    let instance = world.start_with(&[("STREAMVIEW_STOP_AT", "load.stripped")]).await;
    world.until_consumed(5).await;
    let body = json!({ "reason": "to be cut short" });
    let id = instance.posted("/ops/views/rebuild", &body, 202).await["id"].as_i64().unwrap();
    instance.until_stopped().await;
    command(&world, &["pause", "--reason", "in the middle of it"]).await;
    instance.signal("CONT");
    until("the driver leaves it", PATIENCE, || async {
        instance.log_text().contains("the view is paused: it goes on when it is resumed").then_some(())
    })
    .await;
    let operation = instance.json(&format!("/ops/operations/{id}")).await;
    assert_eq!((&operation["state"], &operation["phase"]), (&json!("running"), &json!("loading")), "{operation}");
    assert_eq!(world.number("select coalesce(sum(consumed), 0) from projection_progress where build = 2").await, 0);
    command(&world, &["resume", "--reason", "go on"]).await;
    let over = until_over(&instance, id).await;
    assert_eq!((&over["state"], &over["comparison"]["compared"]), (&json!("done"), &json!(1)), "{over}");
}
