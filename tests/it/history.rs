//! What is kept of each event: `projector.history`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use streamview::views::orders::queries::HISTORY_PAGE_BYTES;

use crate::rest::link;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, item_added, life, oracle, status_changed, stored};
use crate::support::world::{TestRecord, World};

const HISTORY: &str = "STREAMVIEW_PROJECTOR__HISTORY";

#[tokio::test(flavor = "multi_thread")]
async fn a_compact_history_has_every_event_without_its_payload() {
    let world = World::new(1).await;
    let instance = world.start_with(&[(HISTORY, "compact")]).await;
    let events = life("o-1", 5);
    world.publish(events.iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 5).await;
    assert_eq!(stored(&world).await, oracle(&events));
    let page = instance.json("/orders/o-1/events").await;
    let items = page["items"].as_array().unwrap();
    assert_eq!(items.len(), 5);
    for (item, event) in items.iter().zip(&events) {
        assert_eq!((&item["eventId"], &item["effect"]), (&event.event_id().into(), &"applied".into()));
        assert_eq!(item["payload"], Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_history_the_rows_are_the_same_and_only_the_latest_id_is_recognised() {
    let world = World::new(2).await;
    let first = world.start_with(&[(HISTORY, "off")]).await;
    let lives = ["o-1", "o-2"].map(|order| life(order, 4));
    world.publish(lives.iter().flatten().map(TestEvent::record)).await;
    let items = first.order_at("o-1", 4).await["itemCount"].as_i64().unwrap();
    first.order_at("o-2", 4).await;
    assert_eq!(stored(&world).await, without_ledger(oracle(&lives.concat())));
    assert_eq!(first.refusal("/orders/o-1/events", 404).await["code"], "history_off");

    // An id from before the latest, then the latest one again: o-1 is in the cache, o-2 is loaded by another process.
    let goes_on = |order: &str, events: &[TestEvent]| {
        let earlier = item_added(order, 5).with("eventId", events[1].event_id().into());
        let latest = status_changed(order, 6, "Closed");
        let repeated = status_changed(order, 7, "Lost").with("eventId", latest.event_id().into());
        [earlier, latest, repeated].map(|event| event.record())
    };
    world.publish(goes_on("o-1", &lives[0])).await;
    let cached = first.order_at("o-1", 7).await;
    drop(first);
    let second = world.start_with(&[(HISTORY, "off")]).await;
    world.publish(goes_on("o-2", &lives[1])).await;
    let loaded = second.order_at("o-2", 7).await;
    for order in [&cached, &loaded] {
        assert_eq!((&order["itemCount"], &order["status"]), (&(items + 1).into(), &"Closed".into()), "{order}");
    }
    assert_eq!(world.conservation().await, [14, 12, 2, 0, 0, 0, 0]);
    assert_eq!(world.number("select count(*) from order_events_view").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_payload_that_is_let_through_reads_as_jsonb() {
    let world = World::new(1).await;
    let deep = format!("{}1{}", "[".repeat(62), "]".repeat(62));
    let odd = [
        r#""\\u0000 \ud83d\ude00 \u001f \" ""#,
        r#"[1e999, -0, 1E-999, 0.10, "1e1000000"]"#,
        &"9".repeat(1_000),
        &deep,
        r#"{"a": 1, "a": {"": null}}"#,
    ];
    let records = odd.iter().zip(1..).map(|(odd, sequence)| {
        let record = status_changed("o-1", sequence, "Paid").record();
        let text = String::from_utf8(record.payload.clone().unwrap()).unwrap();
        let text = text.replacen('{', &format!("  {{\"odd\" : {odd},"), 1);
        TestRecord { payload: Some(text.into_bytes()), ..record }
    });
    world.publish(records).await;
    let instance = world.start().await;
    instance.order_at("o-1", 5).await;
    assert_eq!(world.number("select count(*) from order_events_view where payload ->> 'status' = 'Paid'").await, 5);
    let last = "select count(*) from order_events_view where payload -> 'odd' = '{\"a\": {\"\": null}}'";
    assert_eq!(world.number(last).await, 1);
    // 1e999 is a number that few parsers can hold, so this is a text here.
    let history = instance.get("/orders/o-1/events").await.text().await.unwrap();
    assert!(history.contains(&format!("\"odd\": [1{},", "0".repeat(999))), "{history}");
}

fn without_ledger(orders: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let kept = |text: String| text.lines().filter(|line| !line.starts_with("  ledger")).collect::<Vec<_>>().join("\n");
    orders.into_iter().map(|(order, text)| (order, kept(text))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_begins_with_the_first_event_also_where_numbers_begin_at_0() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_VIEWS__ORDERS__FIRST_SEQUENCE", "0")]).await;
    let from_zero = life("o-1", 3).into_iter().enumerate().map(|(number, event)| {
        let mut record = event.record();
        record.headers.retain(|(name, _)| name != "x-sequence");
        record.headers.push(("x-sequence".to_owned(), number.to_string().into_bytes()));
        record
    });
    world.publish(from_zero).await;
    instance.order_at("o-1", 2).await;
    let sequences = async |path: &str| {
        let page = instance.json(path).await;
        page["items"].as_array().unwrap().iter().map(|item| item["sequence"].as_i64().unwrap()).collect::<Vec<i64>>()
    };
    assert_eq!(sequences("/orders/o-1/events").await, [0, 1, 2]);
    assert_eq!(sequences("/orders/o-1/events?afterSequence=0").await, [1, 2]);
}

/// An event whose payload has so many bytes as Postgres writes it.
fn of_bytes(order: &str, sequence: i64, bytes: usize) -> TestEvent {
    let event = status_changed(order, sequence, "Paid").with("note", json!(""));
    // A space behind each colon, and behind each comma between two fields.
    let spaces = 2 * event.body.as_object().unwrap().len() - 1;
    let note = "x".repeat(bytes - event.body.to_string().len() - spaces);
    event.with("note", json!(note))
}

/// The numbers on each page, as `Link` leads from one to the next.
async fn pages(instance: &Instance, from: &str) -> Vec<Vec<i64>> {
    let (mut pages, mut next) = (Vec::new(), Some(from.to_owned()));
    while let Some(path) = next {
        let response = instance.get(&path).await;
        assert_eq!(response.status(), 200, "{path}");
        next = link(&response, "next");
        let page: Value = response.json().await.unwrap();
        assert_eq!(page["pageSize"], 200, "the one in effect, however many there are");
        let items = page["items"].as_array().unwrap();
        assert!(items.iter().all(|item| item["payload"]["status"] != Value::Null), "{path}: each with its payload");
        pages.push(items.iter().map(|item| item["sequence"].as_i64().unwrap()).collect());
    }
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_ends_before_it_would_have_more_than_its_bytes_of_payloads() {
    const LARGE: usize = 900_000;
    let world = World::new(1).await;
    let instance = world.start().await;
    let last = usize::try_from(HISTORY_PAGE_BYTES).unwrap() - 4 * LARGE;
    for (order, last, expected) in
        [("o-full", last, vec![vec![1, 2, 3, 4, 5], vec![6]]), ("o-over", last + 1, vec![vec![1, 2, 3, 4], vec![5, 6]])]
    {
        let sizes = [LARGE, LARGE, LARGE, LARGE, last, 1_000];
        let events = sizes.iter().zip(1..).map(|(bytes, sequence)| of_bytes(order, sequence, *bytes).record());
        world.publish(events).await;
        instance.order_at(order, 6).await;
        let stored = format!(
            "select sum(octet_length(payload::text)) from order_events_view where order_id = '{order}' and sequence <= 5"
        );
        assert_eq!(world.number(&stored).await, i64::try_from(4 * LARGE + last).unwrap(), "{order}");
        assert_eq!(pages(&instance, &format!("/orders/{order}/events?pageSize=200")).await, expected, "{order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_larger_than_a_page_may_be_has_a_page_to_itself() {
    let world = World::new(1).await;
    let instance = world.start().await;
    // Written out, these numbers have 4.5 million digits.
    let mut huge = of_bytes("o-1", 2, 600_000).record();
    let text = String::from_utf8(huge.payload.unwrap()).unwrap();
    let numbers = vec!["1e300"; 15_000].join(",");
    huge.payload = Some(text.replacen('{', &format!("{{\"odd\":[{numbers}],"), 1).into_bytes());
    let [before, after] = [1, 3].map(|sequence| status_changed("o-1", sequence, "Paid").record());
    world.publish([before, huge, after]).await;
    instance.order_at("o-1", 3).await;
    let stored = "select octet_length(payload::text) from order_events_view where sequence = 2";
    assert!(world.row(stored).await.get::<_, i32>(0) > i32::try_from(HISTORY_PAGE_BYTES).unwrap());
    assert_eq!(pages(&instance, "/orders/o-1/events?pageSize=200").await, [vec![1], vec![2], vec![3]]);
    assert_eq!(pages(&instance, "/orders/o-1/events?pageSize=200&afterSequence=1").await, [vec![2], vec![3]]);
}
