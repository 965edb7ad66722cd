//! A producer that has lost its counter: events under numbers that their orders have passed, with ids that they never had.

use serde_json::{Value, json};

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life, oracle, status_changed, stored};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const HISTORY: &str = "STREAMVIEW_PROJECTOR__HISTORY";

/// Reasons, orders and numbers of all dead letters, in order.
async fn refusals(world: &World) -> Vec<(String, String, i64)> {
    let query = "select reason, key, sequence from dead_letters where build = (select max(build) from view_builds) \
                 order by partition, \"offset\"";
    let rows = world.sql.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn reused(order: &str, sequence: i64) -> (String, String, i64) {
    ("sequence_reused".to_owned(), order.to_owned(), sequence)
}

/// The life of an order once more, numbered from 1 by a producer that knows nothing of the first.
fn numbered_anew(order: &str, events: i64) -> Vec<TestEvent> {
    let anew = |event: TestEvent| {
        let id = format!("{}-anew", event.event_id());
        event.with("eventId", id.into())
    };
    life(order, events - 1).into_iter().chain([status_changed(order, events, "Cancelled")]).map(anew).collect()
}

async fn publish(world: &World, events: impl IntoIterator<Item = &TestEvent>) {
    world.publish(events.into_iter().map(TestEvent::record)).await;
}

/// The event ids of refused records, as the log of JSON lines has them.
fn logged_ids(instance: &Instance) -> Vec<String> {
    let log = instance.log_text();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refused = lines.filter(|line| line["message"] == "record refused");
    refused.map(|line| line["eventId"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_numbered_anew_are_told_one_by_one_and_hold_nothing() {
    for history in ["payload", "compact"] {
        let world = World::new(1).await;
        let instance = world.start_with(&[(HISTORY, history), ("STREAMVIEW_LOG__FORMAT", "json")]).await;
        let (first, anew) = (life("o-1", 5), numbered_anew("o-1", 5));
        // The copies of both are late, whether they come in the same batch or later.
        publish(&world, first.iter().chain(&anew[..4]).chain(&anew[..4]).chain(&first[..4])).await;
        world.until_consumed(17).await;
        let told: Vec<_> = (1..=4).map(|sequence| reused("o-1", sequence)).collect();
        assert_eq!(refusals(&world).await, told, "{history}");
        assert_eq!(world.conservation().await, [17, 5, 0, 8, 4, 0, 0]);
        instance.until_metric("streamview_dead_letters_total", &["reason=\"sequence_reused\""], 4.0).await;
        instance.until_metric("streamview_out_of_order_total", &["late"], 8.0).await;
        let ids: Vec<&str> = anew[..4].iter().map(TestEvent::event_id).collect();
        until("the log names them", PATIENCE, || async { (logged_ids(&instance) == ids).then_some(()) }).await;

        publish(&world, anew[..4].iter().chain(&first[..4]).chain([&status_changed("o-1", 6, "Delivered")])).await;
        let order = instance.order_at("o-1", 6).await;
        assert_eq!((&order["status"], &order["held"]), (&"Delivered".into(), &Value::Null));
        assert_eq!(refusals(&world).await, told, "{history}");
        assert_eq!(world.conservation().await, [26, 6, 0, 16, 4, 0, 0]);

        // Visible, and an operator can only close it.
        let letter = instance.json("/ops/dead-letters?reason=sequence_reused&pageSize=1").await["items"][0].clone();
        assert_eq!((&letter["key"], &letter["status"]), (&"o-1".into(), &"open".into()), "{letter}");
        let path = format!("/ops/dead-letters/{}", letter["id"]);
        let refused = instance.post(&format!("{path}/redrive"), &json!({ "reason": "again" })).await;
        assert_eq!(refused.status().as_u16(), 409);
        instance.posted(&format!("{path}/skip"), &json!({ "reason": "the producer was mended" }), 202).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ledger_nobody_can_tell_and_they_are_late() {
    let world = World::new(1).await;
    let instance = world.start_with(&[(HISTORY, "off")]).await;
    publish(&world, life("o-1", 5).iter().chain(&numbered_anew("o-1", 5)[..4])).await;
    world.until_consumed(9).await;
    assert_eq!(world.conservation().await, [9, 5, 0, 4, 0, 0, 0]);
    // As builds are that were made before they kept their rules: what was consumed then is in no ledger afterwards, either;
    // what follows is.
    instance.stop().await;
    world.sql.batch_execute("update view_builds set rules = null").await.unwrap();
    let instance = world.start().await;
    publish(&world, &[status_changed("o-1", 6, "Paid"), status_changed("o-1", 7, "Packed")]).await;
    instance.order_at("o-1", 7).await;
    let again =
        [3, 6].map(|sequence| status_changed("o-1", sequence, "Lost").with("eventId", format!("x-{sequence}").into()));
    publish(&world, &again).await;
    world.until_consumed(13).await;
    assert_eq!(refusals(&world).await, [reused("o-1", 6)]);
}

/// Applies the log to `broken` orders whose second event was refused, skipped, replaced or set right, then sends copies of all.
async fn given_up(world: &World, instance: Instance) -> Instance {
    let second = |order: &str| {
        TestEvent { sequence: 2, ..created(order) }
            .with("currency", "USD".into())
            .with("eventId", format!("{order}-usd").into())
    };
    for order in ["skipped", "replaced", "corrected"] {
        publish(world, &[created(order), second(order), item_added(order, 3)]).await;
    }
    world.until_consumed(9).await;
    let letter = async |order: &str| {
        let query = format!("select id from dead_letters where key = '{order}' and sequence = 2");
        format!("/ops/dead-letters/{}", world.number(&query).await)
    };
    let reason = json!({ "reason": "USD" });
    instance.posted(&format!("{}/skip", letter("skipped").await), &reason, 202).await;
    let body = json!({ "reason": "USD", "payload": item_added("replaced", 2).body });
    instance.posted(&format!("{}/replace", letter("replaced").await), &body, 202).await;
    publish(world, &[item_added("corrected", 2)]).await;
    for order in ["skipped", "replaced", "corrected"] {
        instance.order_at(order, 3).await;
    }
    // Another process, which has to load what it knows.
    instance.stop().await;
    let instance = world.start().await;
    let copies = ["skipped", "replaced", "corrected"].map(second);
    publish(world, &copies).await;
    publish(world, &copies).await;
    publish(world, &numbered_anew("corrected", 3)[..2]).await;
    // Nobody knows the event of a skipped number, this may be it; the ones that were replaced are known.
    publish(world, &numbered_anew("skipped", 3)[1..2]).await;
    publish(world, &numbered_anew("replaced", 3)[1..2]).await;
    publish(world, &numbered_anew("replaced", 3)[1..2]).await;
    world.until_consumed(21).await;
    instance
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_what_was_skipped_replaced_or_refused_are_late_and_a_rebuild_says_the_same() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let instance = given_up(&world, instance).await;
    let anew = [reused("corrected", 1), reused("corrected", 2), reused("replaced", 2)];
    let mut told = refusals(&world).await;
    assert_eq!(told.split_off(3), anew);
    assert!(told.iter().all(|letter| letter.0 == "currency_mismatch"), "{told:?}");
    assert_eq!(world.conservation().await, [21, 7, 0, 8, 3, 0, 3]);

    let before = stored(&world).await;
    instance.stop().await;
    let _rebuilt = world.rebuild().await;
    assert_eq!(stored(&world).await, before);
    let told: Vec<_> = refusals(&world).await.into_iter().filter(|letter| letter.0 == "sequence_reused").collect();
    assert_eq!(told, anew);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_load_tells_the_same_events_as_serve() {
    let world = World::new(1).await;
    let (first, anew) = (life("o-1", 5), numbered_anew("o-1", 5));
    publish(&world, first.iter().chain(&anew[..4]).chain(&first[..3]).chain(&anew[..2])).await;
    let load = world.launch_command(&["load"], &[]);
    assert!(load.until_ended().await.success(), "{}", load.log_text());
    let told: Vec<_> = (1..=4).map(|sequence| reused("o-1", sequence)).collect();
    assert_eq!(refusals(&world).await, told);
    let instance = world.start().await;
    publish(&world, anew[..4].iter().chain(&first[..4])).await;
    world.until_consumed(22).await;
    assert_eq!(refusals(&world).await, told);
    assert_eq!(stored(&world).await, oracle(&first));
    drop(instance);
}

/// Orders whose second event was refused as too large, then redriven and taken.
async fn redriven(world: &World, orders: [&str; 2]) -> Instance {
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__MAX_RECORD_BYTES", "2000")]).await;
    for order in orders {
        publish(world, &[created(order), item_added(order, 2).with("note", "x".repeat(3_000).into())]).await;
    }
    world.until_consumed(4).await;
    instance.stop().await;
    let instance = world.start().await;
    for row in world.sql.query("select id from dead_letters", &[]).await.unwrap() {
        let path = format!("/ops/dead-letters/{}/redrive", row.get::<_, i64>(0));
        instance.posted(&path, &json!({ "reason": "the bound was raised" }), 202).await;
    }
    for order in orders {
        instance.order_at(order, 2).await;
    }
    instance
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_about_a_redriven_number_is_open_and_can_be_closed() {
    let world = World::new(1).await;
    let instance = redriven(&world, ["passed", "last"]).await;
    publish(&world, &[item_added("passed", 3)]).await;
    instance.order_at("passed", 3).await;
    for order in ["passed", "last"] {
        publish(&world, &numbered_anew(order, 3)[1..2]).await;
    }
    world.until_consumed(7).await;

    let open = instance.json("/ops/dead-letters?status=open").await["items"].clone();
    assert_eq!(open.as_array().unwrap().len(), 2, "{open}");
    for letter in open.as_array().unwrap() {
        let path = format!("/ops/dead-letters/{}", letter["id"]);
        assert_eq!(instance.json(&path).await["next"][0]["action"], "skip", "{letter}");
        let refused = instance.posted(&format!("{path}/redrive"), &json!({ "reason": "again" }), 409).await;
        assert_eq!(refused["code"], "already_consumed", "{letter}");
    }
    let path = format!("/ops/dead-letters/{}/skip", open[0]["id"]);
    instance.posted(&path, &json!({ "reason": "the producer was mended" }), 202).await;
    let all = json!({ "reason": "the producer was mended", "filter": {}, "expect": 1 });
    let told = instance.posted("/ops/dead-letters/skip", &all, 202).await;
    assert_eq!((&told["decided"], &told["impossible"]), (&json!(1), &json!(0)), "{told}");
    assert_eq!(instance.json("/ops/dead-letters?status=skipped").await["items"].as_array().unwrap().len(), 2);
    assert_eq!(instance.json("/ops/dead-letters?status=redriven").await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_what_was_replaced_are_late_although_its_letter_names_no_number() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let second = item_added("o-1", 2);
    let mut nowhere = second.record();
    nowhere.headers.retain(|(name, _)| name != "x-sequence");
    world.publish([created("o-1").record(), nowhere, item_added("o-1", 3).record()]).await;
    world.until_consumed(3).await;
    let id = world.number("select id from dead_letters").await;
    let payload = second.clone().with("eventId", "mended".into()).body.to_string();
    let body = json!({ "reason": "numbered", "payload": payload, "sequence": 2 });
    instance.posted(&format!("/ops/dead-letters/{id}/replace"), &body, 202).await;
    instance.order_at("o-1", 3).await;
    publish(&world, &[second.clone(), second, numbered_anew("o-1", 3).remove(1)]).await;
    world.until_consumed(6).await;
    let query = "select count(*) from dead_letters where reason = 'sequence_reused'";
    assert_eq!((world.number(query).await, world.conservation().await), (1, [6, 2, 0, 2, 1, 0, 1]));
    // Letters from before ids were kept are known byte for byte.
    world.sql.execute("update dead_letters set event_id = null", &[]).await.unwrap();
    publish(&world, &[numbered_anew("o-1", 3).remove(1)]).await;
    world.until_consumed(7).await;
    assert_eq!(world.number(query).await, 1);
}
