//! A rebuild in place, for those who develop: the build that readers read is cleared and made anew from the log, by what is
//! configured by now; whatever dies or fails meanwhile, nobody takes a part of it for the whole.

use serde_json::{Value, json};

use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::orders::{TestEvent, created, item_added, life, oracle, stored};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const DEV: (&str, &str) = ("STREAMVIEW_ENVIRONMENT", "dev");
const RATE: &str = "STREAMVIEW_TAX__DEFAULT_RATE";

async fn begin(instance: &Instance, body: &Value) -> i64 {
    instance.posted("/ops/views/rebuild", body, 202).await["id"].as_i64().unwrap()
}

async fn until_over(instance: &Instance, id: i64) -> Value {
    until(&format!("operation {id} is over"), PATIENCE, || async {
        let operation = instance.json(&format!("/ops/operations/{id}")).await;
        (operation["state"] != "running").then_some(operation)
    })
    .await
}

fn in_place(reason: &str) -> Value {
    json!({ "reason": reason, "mode": "in_place" })
}

/// What the default tax makes of the lines of orders that state none.
async fn gross(world: &World) -> Vec<String> {
    let query = "select distinct (gross_line_total / net_line_total)::numeric(10, 2)::text from order_items_view \
                 where tax_rate is null and order_id like 'plain-%' order by 1";
    world.sql.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_somebody_relies_on_the_view_it_is_not_cleared() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 3).await;
    let refused = instance.posted("/ops/views/rebuild", &in_place("no"), 403).await;
    assert_eq!(refused["code"], "mode_not_allowed", "{refused}");
    let command = world.launch_command(&["rebuild", "--reason", "no", "--mode", "in_place"], &[]);
    assert_eq!(command.until_ended().await.code(), Some(1));
    assert!(command.log_text().contains("mode_not_allowed"), "{}", command.log_text());
    let other = instance.posted("/ops/views/rebuild", &json!({ "reason": "no", "mode": "inplace" }), 400).await;
    assert_eq!(other["errors"][0]["parameter"], "mode", "{other}");
    // Asked for where it is allowed, driven where it is not.
    let dev = world.launch_command(&["serve", "--only", "api"], &[DEV]);
    dev.until_ready().await;
    let id = begin(&dev, &in_place("by another")).await;
    let over = until_over(&dev, id).await;
    assert_eq!((&over["state"], &over["error"]["code"]), (&json!("failed"), &json!("mode_not_allowed")), "{over}");
    assert_eq!(world.number("select count(*) from orders_view").await, 1);
    let staging = world.launch_command(&["config", "check"], &[("STREAMVIEW_ENVIRONMENT", "staging")]);
    assert_eq!(staging.until_ended().await.code(), Some(2));
    assert!(staging.log_text().contains("production, dev or test"), "{}", staging.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_cleared_and_made_anew_by_what_is_configured_and_every_instance_goes_on() {
    let world = World::new(3).await;
    let load = Load::new("o", 60, 17);
    let instance = world.start_with(&[(RATE, "0.19")]).await;
    world.publish(load.records()).await;
    world.publish([created("plain-1").record(), item_added("plain-1", 2).record()]).await;
    let records = load.len() + 2;
    world.until_consumed(records).await;
    assert_eq!(gross(&world).await, ["1.19"]);
    instance.stop().await;
    world.sql.batch_execute("update orders_1.orders set item_count = 99").await.unwrap();

    let settings = [DEV, (RATE, "0.07"), ("STREAMVIEW_KAFKA__INSTANCE_ID", "a")];
    let first = world.start_with(&settings).await;
    let second = world.start_with(&settings[..2]).await;
    let id = begin(&first, &in_place("another rate")).await;
    let over = until_over(&second, id).await;
    let found = [&over["state"], &over["fromBuild"], &over["toBuild"]];
    assert_eq!(found, [&json!("done"), &json!(1), &json!(1)], "{over}");
    let phases: Vec<&str> =
        over["phases"].as_array().unwrap().iter().map(|entry| entry["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["preflight", "loading", "indexing", "catching_up", "done"]);
    assert_eq!(gross(&world).await, ["1.07"]);
    assert_eq!(world.number("select count(*) from orders_view where item_count = 99").await, 0);
    assert_eq!(world.consumed().await, records);
    let expected = load.expected_counts();
    let counts = world.conservation().await;
    assert_eq!(counts[3..], expected[3..], "late, conflicting, parked and refused ones, as ever");

    // Both project by the new rate from now on, nobody has halted.
    let orders = (2..14).map(|number| format!("plain-{number}"));
    let after = orders.flat_map(|order| [created(&order).record(), item_added(&order, 2).record()]);
    world.publish(after).await;
    world.until_consumed(records + 24).await;
    for instance in [&first, &second] {
        instance.until_running().await;
        assert_eq!(instance.json("/ops/views").await["items"][0]["configuration"]["differs"], json!([]));
    }
    assert_eq!(gross(&world).await, ["1.07"]);

    // Where nothing runs the command does it.
    first.stop().await;
    second.stop().await;
    let alone = world.launch_command(&["rebuild", "--reason", "by hand", "--mode", "in_place"], &[DEV, (RATE, "0.25")]);
    assert!(alone.until_ended().await.success(), "{}", alone.log_text());
    assert_eq!(gross(&world).await, ["1.25"]);
}

/// Who reads is told, in every process, that there is only a part.
#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_made_anew_every_process_says_that_readers_see_a_part() {
    let world = World::new(1).await;
    let instance = world.start_with(&[DEV, ("STREAMVIEW_STOP_AT", "load.written")]).await;
    let api = world.launch_command(&["serve", "--only", "api"], &[DEV]);
    api.until_ready().await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    api.order_at("o-1", 3).await;
    let id = begin(&instance, &in_place("to be seen")).await;
    instance.until_stopped().await;
    let ready = until("it is said", PATIENCE, || async {
        let ready = api.readiness().await;
        ready.to_string().contains("rebuilding_in_place").then_some(ready)
    })
    .await;
    assert_eq!(ready["status"], "degraded", "{ready}");
    let words = format!("build 1 is cleared and made anew by operation {id}: reads show nothing or a part of it");
    assert!(ready.to_string().contains(&words), "{ready}");
    assert_eq!(api.json("/ops/views").await["items"][0]["standing"]["code"], "rebuilding_in_place");
    // It is too late to call it off.
    let late = api.posted(&format!("/ops/operations/{id}/cancel"), &json!({}), 409).await;
    assert_eq!(late["code"], "wrong_phase", "{late}");
    instance.signal("CONT");
    assert_eq!(until_over(&instance, id).await["state"], "done");
    api.order_at("o-1", 3).await;
    until("nothing is said any more", PATIENCE, || async { (api.readiness().await["status"] == "ok").then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_of_it_the_next_process_ends_it() {
    let points =
        ["rebuild.marked", "load.stripped", "load.written", "load.dressed", "rebuild.loaded", "operation.ending"];
    for point in points {
        let world = World::new(2).await;
        let load = Load::new("o", 20, 5);
        world.publish(load.records()).await;
        let dying = world.start_with(&[DEV, ("STREAMVIEW_CRASH_AT", point)]).await;
        world.until_consumed(load.len()).await;
        let id = begin(&dying, &in_place(point)).await;
        assert!(Instance::was_killed(dying.until_ended().await), "{point}: {}", dying.log_text());
        let is_whole = world.number("select count(*) from view_builds where loading_since is null").await == 1;
        assert_eq!(is_whole, ["rebuild.loaded", "operation.ending"].contains(&point), "{point}: a part is marked");

        let next = world.launch(&[DEV]);
        next.until_ready().await;
        let over = until_over(&next, id).await;
        assert_eq!(over["state"], "done", "{point}: {over}");
        next.until_running().await;
        assert_eq!(stored(&world).await, oracle(load.events()), "{point}");
        next.stop().await;
    }
}

/// An event id that is the latest of two orders: no load can tell which one to refuse, and projectors can.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_load_can_judge_is_left_to_projectors_whoever_dies_meanwhile() {
    for point in [None, Some("load.emptied")] {
        let world = World::new(1).await;
        // In two batches the fold alone does not see it.
        let mut settings = vec![DEV, ("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", "1")];
        settings.extend(point.map(|point| ("STREAMVIEW_CRASH_AT", point)));
        let first = world.start_with(&settings).await;
        let same = |order: &str| created(order).with("eventId", json!("the-same"));
        world.publish(["o-1", "o-2"].map(|order| same(order).record())).await;
        world.until_consumed(2).await;
        let id = begin(&first, &in_place("to be judged anew")).await;
        let instance = match point {
            None => first,
            Some(point) => {
                assert!(Instance::was_killed(first.until_ended().await), "{point}: {}", first.log_text());
                let next = world.launch(&settings[..2]);
                next.until_ready().await;
                next
            }
        };

        let over = until_over(&instance, id).await;

        assert_eq!(over["state"], "done", "{point:?}: {over}");
        let phases = over["phases"].as_array().unwrap();
        let detail = phases.iter().find(|entry| entry["phase"] == "catching_up").unwrap()["detail"].clone();
        let is_told = detail.as_str().is_some_and(|detail| detail.contains("orders_dedup_event_id"));
        assert_eq!(is_told, point.is_none(), "{point:?}: {over}");
        instance.until_running().await;
        world.until_consumed(2).await;
        assert_eq!(world.number("select count(*) from orders_view").await, 1, "{point:?}");
        assert_eq!(instance.refusal("/orders/o-2", 404).await["held"]["reason"], "event_id_reused", "{point:?}");
        instance.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_leaves_a_mark_and_says_what_to_do() {
    let world = World::new(1).await;
    let instance = world.start_with(&[DEV, ("STREAMVIEW_STOP_AT", "load.written")]).await;
    world.publish(life("o-1", 2).iter().map(TestEvent::record)).await;
    world.until_consumed(2).await;
    let id = begin(&instance, &in_place("cannot be done")).await;
    instance.until_stopped().await;
    // No index is built under a name that is taken, and nobody gets past that.
    world.sql.batch_execute("create table orders_1.orders_by_status ()").await.unwrap();
    instance.signal("CONT");
    let over = until_over(&instance, id).await;
    assert_eq!((&over["state"], &over["error"]["code"]), (&json!("failed"), &json!("load_failed")), "{over}");
    assert!(over["error"]["nextStep"].as_str().unwrap().contains("holds a part or nothing"), "{over}");
    until("the instance says that the view is not whole", PATIENCE, || async {
        let ready: Value = instance.get("/readyz").await.json().await.unwrap();
        let text = ready.to_string();
        (ready["status"] == "unavailable" && text.contains("build 1 is being loaded in bulk since")).then_some(())
    })
    .await;
    world.sql.batch_execute("drop table orders_1.orders_by_status").await.unwrap();
    let discard = world.launch_command(&["load", "--discard"], &[]);
    assert!(discard.until_ended().await.success(), "{}", discard.log_text());
    instance.until_running().await;
    world.until_consumed(2).await;
    assert_eq!(world.number("select count(*) from orders_view").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_anew_is_taken_up_in_place_by_whoever_accepts_it() {
    let mut world = World::new(2).await;
    let instance = world.start_with(&[DEV]).await;
    world.publish(life("old", 4).iter().map(TestEvent::record)).await;
    instance.order_at("old", 4).await;
    world.recreate_topic(1).await;
    instance.until_halted("log_identity_changed").await;
    world.publish(life("new", 3).iter().map(TestEvent::record)).await;
    for body in [json!({ "reason": "no" }), in_place("no")] {
        let refused = instance.posted("/ops/views/rebuild", &body, 409).await;
        assert_eq!(refused["code"], "log_identity_changed", "{refused}");
    }
    let mut accepted = in_place("the new one is meant");
    accepted["acceptTruncated"] = json!(true);
    let id = begin(&instance, &accepted).await;
    let over = until_over(&instance, id).await;
    assert_eq!(over["state"], "done", "{over}");
    instance.until_running().await;
    instance.order_at("new", 3).await;
    assert_eq!(instance.get("/orders/old").await.status(), 404);
    world.publish(life("newer", 2).iter().map(TestEvent::record)).await;
    instance.order_at("newer", 2).await;
}
