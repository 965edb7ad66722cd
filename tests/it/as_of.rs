//! Orders as they were: `asOfSequence` and `asOf`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use streamview::schemas::subjects::Format;

use crate::registry::{self as in_bad_hours, STATUS, avro_record};
use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::orders::{TestEvent, created, item_added, life, status_changed};
use crate::support::registry::{self, register};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

const HISTORY: &str = "STREAMVIEW_PROJECTOR__HISTORY";

/// The order's body now, byte for byte, with what it waits for taken out: that is not kept.
async fn body_now(instance: &Instance, order_id: &str) -> Option<String> {
    let response = instance.get(&format!("/orders/{order_id}")).await;
    if response.status() == 404 {
        return None;
    }
    Some(without_hold(&response.text().await.unwrap()))
}

fn without_hold(body: &str) -> String {
    let (before, _) = body.rsplit_once(",\"held\":").unwrap();
    format!("{before},\"held\":null}}")
}

async fn body_then(instance: &Instance, order_id: &str, asked: &str) -> Result<String, Value> {
    let response = instance.get(&format!("/orders/{order_id}?{asked}")).await;
    let (status, text) = (response.status(), response.text().await.unwrap());
    if status == 200 { Ok(text) } else { Err(serde_json::from_str(&text).unwrap()) }
}

fn sequence_of(body: &str) -> i64 {
    serde_json::from_str::<Value>(body).unwrap()["lastEventSequence"].as_i64().unwrap()
}

/// A noisy life, record by record: whatever the API said of an order at any moment, it says of that moment later. What
/// operators decide in between is part of it.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_that_was_given_is_given_again() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let load = Load::new("o", 6, 41);
    let broken = TestRecord { payload: Some(b"{ broken".to_vec()), ..item_added("p", 2).record() };
    let held = [created("p").record(), broken, item_added("p", 3).record(), item_added("s", 4).record()];
    let orders: Vec<String> = load.orders().into_iter().chain(["p", "s"].map(str::to_owned)).collect();
    // By order and number, what was answered when it stood there.
    let mut answered: BTreeMap<(String, i64), String> = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(7);
    for (count, record) in (1..).zip(load.records().into_iter().chain(held)) {
        world.publish([record]).await;
        world.until_consumed(count).await;
        note(&instance, &orders, &mut answered).await;
        if random.u8(0..6) == 0 {
            decide(&world, &instance, &mut random).await;
            note(&instance, &orders, &mut answered).await;
        }
    }
    while world.number("select count(*) from held_keys").await > 0 {
        decide(&world, &instance, &mut random).await;
        note(&instance, &orders, &mut answered).await;
    }
    let effects = "select string_agg(distinct effect, ' ' order by effect) from order_events_view";
    let effects: String = world.row(effects).await.get(0);
    assert!(effects.contains("replaced") && effects.contains("skipped"), "the life has decisions in it: {effects}");
    assert!(answered.len() > 20, "{}", answered.len());
    for ((order, sequence), then) in &answered {
        let told = body_then(&instance, order, &format!("asOfSequence={sequence}")).await;
        assert_eq!(told.as_ref(), Ok(then), "{order} at {sequence}");
    }
    // In between it stood where it had stood last.
    for order in &orders {
        let stood: BTreeMap<i64, &String> =
            answered.iter().filter(|((key, _), _)| key == order).map(|((_, number), body)| (*number, body)).collect();
        let Some(last) = stood.last_key_value().map(|(last, _)| *last) else { continue };
        for number in 0..=last {
            let told = body_then(&instance, order, &format!("asOfSequence={number}")).await;
            // A drain commits several numbers at once, so not each of them was seen.
            let numbers: Vec<i64> = history(&world, order).await;
            let expected = numbers.iter().filter(|consumed| **consumed <= number).max();
            match (told, expected) {
                (Ok(body), Some(consumed)) => {
                    assert_eq!(sequence_of(&body), *consumed);
                    assert!(stood.get(consumed).is_none_or(|then| **then == body));
                }
                (Err(problem), None) => assert_eq!(problem["code"], "order_not_found"),
                (told, expected) => panic!("{order} at {number}: {told:?}, {expected:?}"),
            }
        }
    }
}

async fn history(world: &World, order: &str) -> Vec<i64> {
    let query = "select sequence from order_events_view where order_id = $1 order by sequence";
    world.sql.query(query, &[&order]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn note(instance: &Instance, orders: &[String], answered: &mut BTreeMap<(String, i64), String>) {
    for order in orders {
        let Some(body) = body_now(instance, order).await else { continue };
        let before = answered.entry((order.clone(), sequence_of(&body))).or_insert_with(|| body.clone());
        assert_eq!(*before, body, "the order changed at the same number");
    }
}

/// Skips or replaces what some held order waits for, and waits until that is done.
async fn decide(world: &World, instance: &Instance, random: &mut fastrand::Rng) {
    let held = "select h.key, h.missing_from, (select max(d.id) from dead_letters d where d.key = h.key and \
                d.sequence = h.missing_from) from held_keys h order by h.key";
    let held = world.sql.query(held, &[]).await.unwrap();
    let Some(row) = random.choice(&held) else { return };
    let (key, missing, letter): (&str, i64, Option<i64>) = (row.get(0), row.get(1), row.get(2));
    let (path, body) = match letter {
        Some(letter) => {
            let event = if missing == 1 { created(key) } else { status_changed(key, missing, "Mended") };
            let payload = event.with("eventId", json!(format!("{key}-mended-{missing}"))).body;
            (format!("/ops/dead-letters/{letter}/replace"), json!({ "reason": "mended", "payload": payload }))
        }
        None => (format!("/ops/held/{key}/skip"), json!({ "reason": "lost" })),
    };
    instance.posted(&path, &body, 202).await;
    until("the decision is taken", PATIENCE, || async {
        let waiting = "select count(*) from decision_outcomes where taken_at is null and refused is null";
        (world.number(waiting).await == 0).then_some(())
    })
    .await;
}

/// By the clock of the events: the longest run from the first on that says nothing later.
#[tokio::test(flavor = "multi_thread")]
async fn a_moment_shows_the_order_before_the_first_event_that_happened_later() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let at = |time: &str| json!(format!("2026-01-01T{time}Z"));
    let events = [
        created("o-1").with("occurredAt", at("10:00:00")),
        item_added("o-1", 2).with("occurredAt", at("12:00:00")),
        status_changed("o-1", 3, "Paid").with("occurredAt", at("11:00:00")),
        status_changed("o-1", 4, "Shipped").with("occurredAt", at("13:00:00.000001")),
    ];
    world.publish(events.iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    let shown = async |time: &str| match body_then(&instance, "o-1", &format!("asOf=2026-01-01T{time}")).await {
        Ok(body) => sequence_of(&body),
        Err(problem) => {
            assert_eq!((&problem["code"], &problem["status"]), (&"order_not_found".into(), &404.into()));
            0
        }
    };
    for (time, sequence) in [
        ("09:59:59.999999Z", 0),
        ("10:00:00Z", 1),
        ("11:00:00Z", 1),
        ("11:59:59Z", 1),
        ("12:00:00Z", 3),
        ("14:00:00%2B01:00", 3),
        ("13:00:00.000001Z", 4),
        ("23:00:00Z", 4),
    ] {
        assert_eq!(shown(time).await, sequence, "{time}");
    }
    let later = body_then(&instance, "o-1", "asOf=2999-01-01T00:00:00Z").await;
    assert_eq!(later.ok(), body_now(&instance, "o-1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_refused_by_name() {
    let world = World::new(1).await;
    let first = world.start_with(&[(HISTORY, "payload")]).await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    first.order_at("o-1", 3).await;
    for (path, status, code) in [
        ("/orders/o-1?asOfSequence=4", 412, "sequence_not_reached"),
        ("/orders/o-1?asOfSequence=0", 404, "order_not_found"),
        ("/orders/o-1?asOf=2025-01-01T00:00:00Z", 404, "order_not_found"),
        ("/orders/o-2?asOfSequence=1", 404, "order_not_found"),
        ("/orders/o-1?asOfSequence=1&minSequence=1", 400, "invalid_parameter"),
        ("/orders/o-1?asOfSequence=1&waitMs=1", 400, "invalid_parameter"),
        ("/orders/o-1?asOf=2026-01-01T00:00:00Z&asOfSequence=1", 400, "invalid_parameter"),
        ("/orders/o-1?asOf=yesterday", 400, "invalid_parameter"),
    ] {
        assert_eq!(first.refusal(path, status).await["code"], code, "{path}");
    }
    assert_eq!(first.refusal("/orders/o-1?asOfSequence=9", 412).await["currentSequence"], 3);
    drop(first);

    // From here on without payloads, then without a history: what was before can still be told. A build keeps what it was made
    // by, so it is made to forget that.
    let forget = "update view_builds set rules = null";
    world.sql.batch_execute(forget).await.unwrap();
    let second = world.start_with(&[(HISTORY, "compact")]).await;
    world.publish(life("o-1", 5)[3..].iter().map(TestEvent::record)).await;
    second.order_at("o-1", 5).await;
    let refused = second.refusal("/orders/o-1?asOfSequence=5", 409).await;
    assert_eq!(refused["code"], "history_incomplete");
    assert_eq!(refused["detail"], "The history holds event 4 without its payload");
    drop(second);
    world.sql.batch_execute(forget).await.unwrap();
    let third = world.start_with(&[(HISTORY, "off")]).await;
    world.publish(life("o-1", 7)[5..].iter().map(TestEvent::record)).await;
    world.publish(life("o-3", 2).iter().map(TestEvent::record)).await;
    third.order_at("o-1", 7).await;
    third.order_at("o-3", 2).await;
    assert_eq!(third.json("/orders/o-1?asOfSequence=3").await["lastEventSequence"], 3);
    for (path, detail) in [
        ("/orders/o-3?asOfSequence=1", "The history has no events 1 to 2"),
        ("/orders/o-3?asOf=2999-01-01T00:00:00Z", "The history has no events 1 to 2"),
        ("/orders/o-1?asOf=2999-01-01T00:00:00Z", "The history holds event 4 without its payload"),
    ] {
        let refused = third.refusal(path, 409).await;
        assert_eq!((&refused["code"], &refused["detail"]), (&"history_incomplete".into(), &detail.into()), "{path}");
    }
    // A row of it is lost: what is behind cannot be told.
    world.sql.batch_execute("delete from orders_1.ledger where key = 'o-1' and sequence = 2").await.unwrap();
    assert_eq!(third.json("/orders/o-1?asOfSequence=1").await["lastEventSequence"], 1);
    let refused = third.refusal("/orders/o-1?asOfSequence=3", 409).await;
    assert_eq!(refused["detail"], "The history has no events 2 to 2");
}

/// The header that says the version is not kept: what was made of the event tells.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_read_in_the_version_in_which_it_came() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_TAX__DEFAULT_RATE", "0.05")]).await;
    let version = |event: TestEvent, version: &str| {
        let mut record = event.record();
        record.headers.push(("x-event-version".to_owned(), version.as_bytes().to_vec()));
        record
    };
    let percent = |sequence| item_added("o-1", sequence).with("taxPercent", json!("19"));
    let untyped = |event: TestEvent| {
        let mut record = event.record();
        let mut body = event.body.clone();
        let name = body.as_object_mut().unwrap().remove("type").unwrap();
        record.payload = Some(body.to_string().into_bytes());
        record.headers.push(("x-event-type".to_owned(), name.as_str().unwrap().as_bytes().to_vec()));
        record
    };
    let records: Vec<TestRecord> = vec![
        created("o-1").record(),
        version(percent(2), "2"),
        percent(3).record(), // version 1 passes over it: the configured rate holds
        version(percent(4), "2"),
        item_added("o-1", 5).with("taxRate", json!("0.07")).with("taxPercent", json!("19")).record(),
        untyped(status_changed("o-1", 6, "Paid")),
    ];
    let mut bodies = Vec::new();
    for (sequence, record) in (1..).zip(records) {
        world.publish([record]).await;
        instance.order_at("o-1", sequence).await;
        bodies.push(body_now(&instance, "o-1").await.unwrap());
    }
    let order = instance.json("/orders/o-1").await;
    let rates: Vec<&Value> = order["items"].as_array().unwrap().iter().map(|item| &item["taxRate"]).collect();
    assert_eq!(json!(rates), json!(["0.07", "0.19", null, "0.19", "0.07"]));
    for (sequence, body) in (1..).zip(bodies) {
        assert_eq!(body_then(&instance, "o-1", &format!("asOfSequence={sequence}")).await, Ok(body), "{sequence}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_the_past_is_the_tag_that_it_had() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 4);
    world.publish(events[..2].iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 2).await;
    let tag = |response: &reqwest::Response| response.headers()["etag"].to_str().unwrap().to_owned();
    let then = tag(&instance.get("/orders/o-1").await);
    world.publish(events[2..].iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    let past = instance.get("/orders/o-1?asOfSequence=2").await;
    assert_eq!((past.headers()["cache-control"].to_str().unwrap(), tag(&past)), ("private, no-cache", then.clone()));
    let request = instance.http.get(instance.url("/orders/o-1?asOfSequence=2")).header("if-none-match", &then);
    assert_eq!(request.send().await.unwrap().status(), 304);
    let request = instance.http.get(instance.url("/orders/o-1?asOfSequence=3")).header("if-none-match", &then);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

/// What is kept of an Avro event is JSON, and the name of its record may be all that says its type.
#[tokio::test(flavor = "multi_thread")]
async fn an_avro_event_is_folded_from_what_is_kept_of_it() {
    const ITEM: &str = include_str!("../../schemas/avro/order_item_added.v2.avsc");
    let Some(url) = registry::shared() else { return };
    let world = World::new(1).await;
    let instance = in_bad_hours::start(&world, url, &[]).await;
    let (subject, other) = (format!("{}-value", world.topic), format!("{}-other", world.topic));
    let item = register(url, &subject, Format::Avro, ITEM).await;
    let status = register(url, &other, Format::Avro, STATUS).await;
    let fields = [("qty", "2.000"), ("price", "9.9900"), ("taxPercent", "19.00")];
    let event = fields.iter().fold(item_added("o-1", 2), |event, (name, value)| event.with(name, json!(value)));
    let mut added = avro_record(&event, item, ITEM);
    added.headers.push(("x-event-version".to_owned(), b"2".to_vec()));
    let paid = avro_record(&status_changed("o-1", 3, "Paid"), status, STATUS);
    let mut bodies = Vec::new();
    for (sequence, record) in (1..).zip([created("o-1").record(), added, paid]) {
        world.publish([record]).await;
        instance.order_at("o-1", sequence).await;
        bodies.push(body_now(&instance, "o-1").await.unwrap());
    }
    assert!(bodies[2].contains(r#""taxRate":"0.1900""#), "{}", bodies[2]);
    for (sequence, body) in (1..).zip(bodies) {
        assert_eq!(body_then(&instance, "o-1", &format!("asOfSequence={sequence}")).await, Ok(body), "{sequence}");
    }
}
