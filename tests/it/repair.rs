//! What operators are promised: everything that is held or refused is shown, and a decision is made once, by the rules,
//! with a trace; from the API and from the command line alike.

use serde_json::{Value, json};

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, life};
use crate::support::world::{TestRecord, World};

/// An event's place with bytes that are no event.
fn broken(event: &TestEvent) -> TestRecord {
    TestRecord { payload: Some(b"{ this is no event".to_vec()), ..event.record() }
}

async fn decisions(world: &World) -> i64 {
    world.number("select count(*) from event_decisions").await
}

fn why(text: &str) -> Value {
    json!({ "reason": text, "actor": "somebody" })
}

/// An order with a gap (2 to 3 missing, 4 and 5 parked) and one with a refused event (2, with 3 parked).
async fn two_held_orders(world: &World) {
    let (gap, bad) = (life("gap", 5), life("bad", 3));
    let records = [&gap[0], &gap[3], &gap[4], &bad[0]].map(TestEvent::record);
    world.publish(records.into_iter().chain([broken(&bad[1]), bad[2].record()])).await;
    world.until_consumed(6).await;
}

/// Ends the projector, and starts an instance that only serves: decisions stay pending.
async fn without_projector(world: &World, projector: Instance) -> Instance {
    projector.stop().await;
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_order_shows_what_it_waits_for_and_what_can_be_done() {
    let world = World::new(1).await;
    let instance = world.start().await;
    two_held_orders(&world).await;

    let list = instance.json("/ops/held").await;
    let keys: Vec<&str> = list["items"].as_array().unwrap().iter().map(|held| held["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 2);
    assert!(keys.contains(&"gap") && keys.contains(&"bad"));

    let gap = instance.json("/ops/held/gap").await;
    assert_eq!((&gap["reason"], &gap["missingFrom"], &gap["missingTo"]), (&json!("gap"), &json!(2), &json!(3)));
    assert_eq!((&gap["parkedCount"], &gap["refused"], &gap["decisions"]), (&json!(2), &json!([]), &json!([])));
    let parked = &gap["parked"][0];
    assert_eq!((&parked["sequence"], &parked["eventId"]), (&json!(4), &json!("gap-event-4")));
    assert_eq!((&parked["type"], &parked["payload"]["json"]["orderId"]), (&json!("OrderStatusChanged"), &json!("gap")));
    let skip = &gap["next"][0];
    assert_eq!((&skip["action"], &skip["href"]), (&json!("skip"), &json!("/ops/held/gap/skip")));
    assert_eq!((&skip["body"]["from"], &skip["body"]["to"]), (&json!(2), &json!(3)));

    let bad = instance.json("/ops/held/bad").await;
    assert_eq!((&bad["reason"], &bad["refused"]), (&json!("poison"), &json!([2])));
    let letter = bad["deadLetters"][0]["href"].as_str().unwrap();
    let actions: Vec<&Value> = bad["next"].as_array().unwrap().iter().map(|step| &step["action"]).collect();
    assert_eq!(actions, ["replace", "redrive", "skip"]);

    let letter = instance.json(letter).await;
    assert_eq!((&letter["key"], &letter["sequence"], &letter["status"]), (&json!("bad"), &json!(2), &json!("open")));
    assert_eq!(letter["payload"]["text"], "{ this is no event");
    assert_eq!(letter["payload"]["base64"], "eyB0aGlzIGlzIG5vIGV2ZW50");
    assert_eq!(letter["headers"], json!([{ "name": "x-sequence", "text": "2" }]));
    assert_eq!(letter["links"]["row"], "/orders/bad");
    assert_eq!(instance.refusal("/ops/held/nobody", 404).await["code"], "held_key_not_found");
    assert_eq!(instance.refusal("/ops/dead-letters/999", 404).await["code"], "dead_letter_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skip_is_decided_once_by_the_rules_and_leaves_a_trace() {
    let world = World::new(1).await;
    let projector = world.start().await;
    two_held_orders(&world).await;
    let api = without_projector(&world, projector).await;

    for (body, code) in [
        (json!({ "reason": "x", "from": 1 }), "already_consumed"),
        (json!({ "reason": "x", "from": 2, "to": 4 }), "number_is_parked"),
        (json!({ "reason": "x", "from": 6 }), "out_of_reach"),
    ] {
        assert_eq!(api.posted("/ops/held/gap/skip", &body, 409).await["code"], code, "{body}");
    }
    assert_eq!(api.posted("/ops/held/nobody/skip", &why("x"), 404).await["code"], "held_key_not_found");
    assert_eq!(decisions(&world).await, 0);

    let answer = api.posted("/ops/held/gap/skip", &json!({ "reason": "lost", "from": 3 }), 202).await;
    assert_eq!(
        (&answer["decisions"][0]["sequence"], &answer["decisions"][0]["status"]),
        (&json!(3), &json!("pending"))
    );
    let answer = api.posted("/ops/held/gap/skip", &why("lost too"), 202).await;
    let made = &answer["decisions"][0];
    assert_eq!((&made["sequence"], &made["sequenceTo"]), (&json!(2), &json!(2)), "cut before what is decided");
    assert_eq!(
        (&made["actor"], &made["reason"], &made["action"]),
        (&json!("somebody"), &json!("lost too"), &json!("skip"))
    );
    let again = api.posted("/ops/held/gap/skip", &why("lost"), 409).await;
    assert_eq!((&again["code"], &again["decisionId"]), (&json!("already_decided"), &made["id"]));
    let shown = api.json("/ops/held/gap").await;
    assert_eq!((&shown["decided"], &shown["next"][0]["action"]), (&json!(true), &json!("look")));
    let audit = api.json("/ops/decisions?key=gap&actor=somebody").await;
    assert_eq!(audit["items"], json!([made]));
    assert_eq!(world.number("select max(decisions) from projection_progress").await, 2, "refusals are rolled back");
    assert_eq!(api.metric("streamview_decisions_total", &["action=\"skip\""]).await, 2.0);
}
