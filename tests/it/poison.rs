//! What cannot be an event: each record refused with its reason, published once to the DLQ topic, in nobody's way.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rdkafka::Message;
use rdkafka::message::{Headers, OwnedMessage};
use serde_json::{Value, json};

use crate::support::orders::{TestEvent, created, item_added, oracle, status_changed, stored};
use crate::support::servers;
use crate::support::world::{TestRecord, World, header};
use crate::support::{PATIENCE, until};

/// A record that has to be refused, why, and at which sequence of its order that holds the order (if it is readable).
struct Bad {
    name: &'static str,
    record: TestRecord,
    reason: &'static str,
    held_at: Option<i64>,
}

/// A good `OrderCreated` as text, with one piece exchanged.
fn created_with(order: &str, from: &str, to: &str) -> TestRecord {
    let text = created(order).body.to_string();
    assert!(text.contains(from), "{from} is not in {text}");
    TestRecord { payload: Some(text.replacen(from, to, 1).into_bytes()), ..created(order).record() }
}

fn payload(order: &str, payload: impl Into<Vec<u8>>) -> TestRecord {
    TestRecord { payload: Some(payload.into()), ..created(order).record() }
}

fn headers(order: &str, headers: &[(&str, &[u8])]) -> TestRecord {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
    TestRecord { headers, ..created(order).record() }
}

fn with_header(order: &str, name: &str, value: &[u8]) -> TestRecord {
    headers(order, &[("x-sequence", b"1"), (name, value)])
}

fn key(order: &str, key: Option<&[u8]>) -> TestRecord {
    TestRecord { key: key.map(<[u8]>::to_vec), partition: Some(0), ..created(order).record() }
}

/// The corpus. Each record is the first event of an order of its own.
fn corpus() -> Vec<Bad> {
    let mut corpus: Vec<Bad> = Vec::new();
    macro_rules! bad {
        ($name:literal, $reason:literal, $held_at:expr, $record:expr) => {{
            let record: TestRecord = ($record)(&format!("bad-{:03}", corpus.len()));
            corpus.push(Bad { name: $name, record, reason: $reason, held_at: $held_at });
        }};
    }
    macro_rules! exchanged {
        ($name:literal, $reason:literal, $($from:literal => $to:expr),+ $(,)?) => {
            $(bad!($name, $reason, Some(1), |order: &str| created_with(order, $from, $to.as_ref()));)+
        };
    }

    bad!("no key", "null_key", None, |o: &str| key(o, None));
    bad!("empty key", "invalid_key", None, |o: &str| key(o, Some(b"")));
    bad!("key is not UTF-8", "invalid_key", None, |o: &str| key(o, Some(b"\xff\xfe")));
    bad!("NUL in the key", "invalid_key", None, |o: &str| key(o, Some(b"a\0b")));
    bad!("key of 257 bytes", "invalid_key", None, |o: &str| key(o, Some(&[b'k'; 257])));
    bad!("no sequence", "missing_sequence", None, |o: &str| headers(o, &[]));
    for sequence in ["", "0", "01", "+1", "-1", "1.0", "1e0", " 1", "one", "1234567890123456789", "\u{661}"] {
        bad!("malformed sequence", "invalid_sequence", None, |o: &str| headers(
            o,
            &[("x-sequence", sequence.as_bytes())]
        ));
    }
    bad!("two sequences", "invalid_sequence", None, |o: &str| headers(
        o,
        &[("x-sequence", b"1"), ("x-sequence", b"2")]
    ));
    bad!("no value", "null_payload", Some(1), |o: &str| TestRecord { payload: None, ..created(o).record() });
    bad!("newer version", "unsupported_version", Some(1), |o: &str| with_header(o, "x-event-version", b"3"));
    bad!("malformed version", "unsupported_version", Some(1), |o: &str| with_header(o, "x-event-version", b"v1"));
    bad!("type and header differ", "type_mismatch", Some(1), |o: &str| with_header(
        o,
        "x-event-type",
        b"OrderItemAdded"
    ));
    bad!("type header is not UTF-8", "type_mismatch", Some(1), |o: &str| with_header(o, "x-event-type", b"\xc3"));

    for text in [
        "",
        " ",
        "{",
        "nonsense",
        "null",
        "7",
        "\"text\"",
        "[]",
        "[{}]",
        "{} {}",
        "{}x",
        "\u{feff}\u{feff}{}",
        "{'a':1}",
        "{\"a\":01}",
    ] {
        bad!("not one JSON object", "invalid_json", Some(1), |o: &str| payload(o, text));
    }
    bad!("not UTF-8", "invalid_json", Some(1), |o: &str| payload(o, b"{\"type\":\"\xff\"}"));
    bad!("random bytes", "invalid_json", Some(1), |o: &str| payload(o, (1..=255).collect::<Vec<u8>>()));
    bad!("framed by chance", "unsupported_schema", Some(1), |o: &str| payload(o, (0..=255).collect::<Vec<u8>>()));
    bad!("control character", "invalid_json", Some(1), |o: &str| created_with(o, "\"TEA\"", "\"T\u{1}A\""));
    exchanged!("field twice", "invalid_json", "{\"currency\"" => "{\"orderId\":\"x\",\"currency\"");
    // A mark before UTF-8 is passed over; what stands behind it is judged as ever.
    bad!("no type behind a byte order mark", "missing_type", Some(1), |o: &str| payload(o, "\u{feff}{}"));
    bad!("sequence header in another case", "missing_sequence", None, |o: &str| headers(o, &[("X-Sequence", b"1")]));
    for utf16 in [u16::to_le_bytes, u16::to_be_bytes] {
        bad!("UTF-16", "invalid_json", Some(1), |o: &str| {
            let text = created(o).body.to_string();
            payload(o, text.encode_utf16().flat_map(utf16).collect::<Vec<u8>>())
        });
    }
    bad!("no type", "missing_type", Some(1), |o: &str| created_with(o, ",\"type\":\"OrderCreated\"", ""));
    exchanged!("type", "schema_violation", "\"OrderCreated\"" => "5", "\"OrderCreated\"" => "\"\"", "\"OrderCreated\"" => "null");
    exchanged!("currency", "schema_violation", "\"EUR\"" => "\"eur\"", "\"EUR\"" => "978", "\"EUR\"" => "\"EURO\"", "\"EUR\"" => "null");
    exchanged!("items", "schema_violation", "\"items\":[" => "\"items\":[7,", "\"items\":[" => "\"items\":[[],", "\"items\"" => "\"lines\"");
    exchanged!("itemId", "schema_violation", "\"i-1\"" => "1", "\"i-1\"" => "\"\"", "\"itemId\"" => "\"id\"");
    exchanged!("sku", "schema_violation", "\"TEA\"" => "null", "\"TEA\"" => format!("\"{}\"", "s".repeat(257)));
    exchanged!("qty", "schema_violation", "\"qty\":2" => "\"qty\":true", "\"qty\":2" => "\"qty\":\"two\"", "\"qty\":2" => "\"qty\":null",
        "\"qty\":2" => "\"qty\":1e2", "\"qty\":2" => "\"qty\":1E-400", "\"qty\":2" => "\"qty\":1234567890123456789",
        "\"qty\":2" => "\"qty\":0.1234567890123", "\"qty\":2" => "\"qty\":\" 2\"", "\"qty\":2" => "\"qty\":{}");
    exchanged!("price", "schema_violation", "\"4.35\"" => "\"4,35\"", "\"4.35\"" => "\"NaN\"", "\"4.35\"" => "[]", "\"price\"" => "\"cost\"");
    exchanged!("taxRate", "schema_violation", "0.07" => "\"7 %\"", "0.07" => "false");
    exchanged!("occurredAt", "schema_violation", "2026-01-01T" => "2026-02-30T", "2026-01-01T" => "2026-01-01 ", "2026-01-01T" => "-005000-01-01T",
        "2026-01-01T" => "12026-01-01T", "2026-01-01T00:00:01Z" => "2026-01-01T00:00:01", "2026-01-01T00:00:01Z" => "9999-12-31T23:59:59Z",
        "2026-01-01T00:00:01Z" => "infinity", "2026-01-01T00:00:01Z" => "1767225601", "2026-01-01T00:00:01Z" => "2026-01-01T00:00:01+24:00",
        "2026-01-01T00:00:01Z" => "2026-01-01T12:34:60Z", "2026-01-01T00:00:01Z" => "2017-01-01T23:59:60Z");
    exchanged!("NUL in a text", "unrepresentable", "TEA" => "T\\u0000A");
    exchanged!("lone surrogate", "unrepresentable", "TEA" => "\\ud800", "TEA" => "\\udc00", "TEA" => "\\udc00\\ud800", "TEA" => "\\uD800\\n");
    exchanged!("NUL in an unknown field", "unrepresentable", "{\"currency\"" => "{\"note\":\"\\u0000\",\"currency\"",
        "{\"currency\"" => "{\"no\\u0000te\":1,\"currency\"");
    exchanged!("huge number", "unrepresentable", "\"qty\":2" => format!("\"qty\":{}", "9".repeat(1001)),
        "{\"currency\"" => format!("{{\"n\":{},\"currency\"", "9".repeat(200_000)),
        "{\"currency\"" => "{\"n\":1e1000000,\"currency\"", "{\"currency\"" => "{\"n\":-1E-99999,\"currency\"");
    bad!("totals overflow", "unrepresentable", Some(1), |o: &str| {
        let most = "999999999999999999.999999999999";
        created(o).with("items", json!([{ "itemId": "i", "sku": "s", "qty": most, "price": most }])).record()
    });
    exchanged!("deep nesting", "nesting_too_deep", "{\"currency\"" => format!("{{\"n\":{}{},\"currency\"", "[".repeat(64), "]".repeat(64)),
        "{\"currency\"" => format!("{{\"n\":{},\"currency\"", "{\"a\":".repeat(100_000)));
    bad!("more than 10,000 items", "schema_violation", Some(1), |o: &str| {
        let item = json!({ "itemId": "i", "sku": "s", "qty": 1, "price": 1 });
        created(o).with("items", vec![item; 10_001].into()).record()
    });
    bad!("record of more than a mebibyte", "record_too_large", Some(1), |o: &str| created(o)
        .with("note", "x".repeat(1 << 20).into())
        .record());
    bad!("key is not the orderId", "key_mismatch", Some(1), |o: &str| key(o, Some(format!("{o}-other").as_bytes())));
    for field in ["eventId", "occurredAt", "orderId", "customerId"] {
        for value in [Value::Null, 7.into(), "".into(), json!({}), "x".repeat(257).into()] {
            bad!("wrong value of a text field", "schema_violation", Some(1), |o: &str| created(o)
                .with(field, value.clone())
                .record());
        }
        bad!("missing field", "schema_violation", Some(1), |o: &str| {
            let mut event = created(o);
            event.body.as_object_mut().unwrap().remove(field);
            event.record()
        });
    }
    for value in [Value::Null, 7.into(), "".into(), json!([]), "x".repeat(257).into()] {
        bad!("status", "schema_violation", Some(1), |o: &str| status_changed(o, 1, "x")
            .with("status", value.clone())
            .record());
    }
    corpus
}

static CORPUS: LazyLock<Vec<Bad>> = LazyLock::new(corpus);

fn key_text(record: &TestRecord) -> String {
    String::from_utf8(record.key.clone().unwrap_or_default()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_of_the_corpus_is_refused_once_with_its_reason_and_nobody_else_notices() {
    let servers = servers::shared();
    let world = World::on(&servers.kafka, &servers.database, 1, &[("max.message.bytes", "8000000")]).await;
    let good: Vec<TestEvent> = (0..CORPUS.len()).map(|n| created(&format!("good-{n:03}"))).collect();
    let published = good.iter().zip(CORPUS.iter());
    world
        .publish(
            published
                .flat_map(|(good, bad)| [good.record_on(0), TestRecord { partition: Some(0), ..bad.record.clone() }]),
        )
        .await;
    let instance = world.start().await;
    let bad = CORPUS.len() as i64;
    world.until_consumed(2 * bad).await;

    assert_eq!(world.conservation().await, [2 * bad, bad, 0, 0, 0, 0, bad]);
    assert_eq!(stored(&world).await, oracle(&good));
    let letters = until_published(&world, CORPUS.len()).await;
    for (index, bad) in CORPUS.iter().enumerate() {
        let offset = 2 * index as i64 + 1;
        let row = world
            .row(&format!("select reason, error, key, sequence from dead_letters where \"offset\" = {offset}"))
            .await;
        let (reason, error): (&str, &str) = (row.get(0), row.get(1));
        assert_eq!(reason, bad.reason, "{} at {offset}: {error}", bad.name);
        assert!((1..600).contains(&error.len()) && !error.contains('\0'), "{}: {error}", bad.name);
        let letter = letters.get(&offset).unwrap_or_else(|| panic!("{} is not on the DLQ topic", bad.name));
        assert_is_original(letter, &bad.record);
        assert_tells_where_from(letter, &world.topic, offset, bad.reason, error);
        if let Some(sequence) = bad.held_at {
            assert_eq!(row.get::<_, Option<i64>>(3), Some(sequence), "{}", bad.name);
            let problem = instance.refusal(&format!("/orders/{}", key_text(&bad.record)), 404).await;
            assert_eq!(
                (&problem["code"], &problem["held"]["reason"]),
                (&"order_held".into(), &"poison".into()),
                "{}",
                bad.name
            );
            assert_eq!(problem["held"]["missingFrom"], sequence, "{}", bad.name);
        }
    }
    let held = CORPUS.iter().filter(|bad| bad.held_at.is_some()).count();
    assert_eq!(world.number("select count(*) from held_keys").await, held as i64);
    for bad in CORPUS.iter() {
        let count = CORPUS.iter().filter(|other| other.reason == bad.reason).count();
        let label = format!("\"{}\"", bad.reason);
        instance.until_metric("streamview_dead_letters_total", &[&label], count as f64).await;
    }
    instance.until_metric("streamview_held_keys", &["poison"], held as f64).await;
    assert_eq!(instance.metric("streamview_conservation_difference", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_replay_from_the_beginning_refuse_nothing_twice() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let good = created("good");
    let broken = |order: &str| payload(order, "{");
    world.publish([good.record(), broken("bad-1"), key("bad-2", None), item_added("bad-3", 2).record()]).await;
    world.until_consumed(4).await;
    let first = until_published(&world, 2).await;
    let (orders, held) = (stored(&world).await, held_keys(&world).await);

    instance.stop().await;
    let instance = world.start().await;
    // The marker is relayed after whatever a restart might have relayed again.
    world.publish([broken("marker-1")]).await;
    assert_eq!(until_published(&world, 3).await.len(), 3);
    assert_eq!(world.conservation().await, [5, 1, 0, 0, 0, 1, 3]);

    instance.stop().await;
    world.sql.execute("update projection_progress set next_offset = 0, anchor_offset = null", &[]).await.unwrap();
    let instance = world.start().await;
    world.publish([broken("marker-2")]).await;
    world.until_consumed(11).await;
    let after = until_published(&world, 4).await;

    assert_eq!(stored(&world).await, orders);
    let held_after: Vec<_> =
        held_keys(&world).await.into_iter().filter(|(key, ..)| !key.starts_with("marker")).collect();
    assert_eq!(held_after, held);
    assert_eq!(world.number("select count(*) from dead_letters").await, 4);
    for (offset, letter) in &first {
        assert_eq!(header(&after[offset], "x-dlq-at"), header(letter, "x-dlq-at"), "{offset}");
    }
    instance.until_metric("streamview_dead_letters_unpublished", &[], 0.0).await;
    assert_eq!(instance.metric("streamview_conservation_difference", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_currency_for_the_same_order_is_refused_and_holds_it_there() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let mut dollars = created("o-1").with("currency", "USD".into()).with("eventId", "dollars".into());
    dollars.sequence = 2;
    world.publish([created("o-1"), dollars, item_added("o-1", 3), created("o-2")].iter().map(TestEvent::record)).await;
    world.until_consumed(4).await;

    let order = instance.json("/orders/o-1").await;
    assert_eq!((&order["lastEventSequence"], &order["currency"]), (&1.into(), &"EUR".into()));
    assert_eq!((&order["held"]["reason"], &order["held"]["missingFrom"]), (&"poison".into(), &2.into()));
    let letters = until_published(&world, 1).await;
    assert_eq!(header(&letters[&1], "x-dlq-reason").as_deref(), Some("currency_mismatch"));
    assert_eq!(world.conservation().await, [4, 2, 0, 0, 0, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_five_megabytes_goes_whole_to_a_topic_that_takes_it() {
    let servers = servers::shared();
    let world = World::on(&servers.kafka, &servers.database, 1, &[("max.message.bytes", "8000000")]).await;
    let huge = created("huge").with("note", "x".repeat(5_000_000).into()).record();
    let (before, after) = (created("before"), created("after"));
    world.publish([before.record(), huge.clone(), after.record()]).await;
    let _instance = world.start().await;

    let letters = until_published(&world, 1).await;

    assert_eq!(header(&letters[&1], "x-dlq-reason").as_deref(), Some("record_too_large"));
    assert_is_original(&letters[&1], &huge);
    assert_eq!(header(&letters[&1], "x-dlq-payload"), None);
    assert_eq!(stored(&world).await, oracle([&before, &after]));
    assert_eq!(world.conservation().await, [3, 2, 0, 0, 0, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_too_large_for_the_dlq_topic_leaves_a_pointer_there_and_its_bytes_in_the_table() {
    let servers = servers::shared();
    let mut world = World::on(&servers.kafka, &servers.database, 1, &[("max.message.bytes", "8000000")]).await;
    world.dlq_topic = format!("{}.small", world.dlq_topic);
    world.create_topic(&world.dlq_topic, 1, &[]).await;
    let huge = created("huge").with("note", "x".repeat(5_000_000).into()).record();
    world.publish([huge.clone(), payload("small", "{"), created("after").record()]).await;
    let _instance = world.start().await;

    let letters = until_published(&world, 2).await;

    let pointer = header(&letters[&0], "x-dlq-payload").unwrap();
    let bytes = huge.payload.unwrap();
    let id = world.number("select id from dead_letters where \"offset\" = 0").await;
    assert_eq!(
        pointer,
        format!("omitted; {} bytes, crc32 {:08x}; see dead_letters.id {id}", bytes.len(), crc32fast::hash(&bytes))
    );
    assert_eq!((letters[&0].payload(), letters[&0].key()), (None, huge.key.as_deref()));
    let kept: Vec<u8> = world.row("select payload from dead_letters where \"offset\" = 0").await.get(0);
    assert!(kept == bytes, "the table's bytes differ");
    assert_eq!(header(&letters[&1], "x-dlq-payload"), None);
    assert_eq!(world.conservation().await, [3, 1, 0, 0, 0, 0, 2]);
}

/// A database that refuses to store certain events of a build's ledger, as Postgres itself refuses what it cannot represent.
pub async fn refuse_to_store(world: &World, build: i32, condition: &str) {
    let trigger = format!(
        "create or replace function refuse() returns trigger language plpgsql as $$ \
         begin raise exception 'value out of range' using errcode = '22003'; end $$; \
         create trigger refuse before insert on orders_{build}.ledger for each row when ({condition}) \
         execute function refuse()"
    );
    world.sql.batch_execute(&trigger).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_postgres_refuses_is_found_in_its_batch_and_refused_alone() {
    let world = World::new(2).await;
    refuse_to_store(&world, 1, "new.key like 'unstorable-%'").await;
    let names: Vec<String> =
        (0..200).map(|n| if n % 67 == 31 { format!("unstorable-{n}") } else { format!("o-{n}") }).collect();
    let events: Vec<TestEvent> = names.iter().flat_map(|name| [created(name), item_added(name, 2)]).collect();
    world.publish(events.iter().map(TestEvent::record)).await;
    let instance = world.start().await;
    world.until_consumed(400).await;

    let storable = events.iter().filter(|event| !event.order_id.starts_with("unstorable"));
    assert_eq!(stored(&world).await, oracle(storable));
    let letters =
        world.sql.query("select key, sequence, reason, error from dead_letters order by key", &[]).await.unwrap();
    let refused: Vec<(&str, i64, &str)> = letters.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let unstorable = ["unstorable-165", "unstorable-31", "unstorable-98"];
    assert_eq!(refused, unstorable.map(|name| (name, 1, "unrepresentable")));
    assert!(letters[0].get::<_, &str>(3).contains("value out of range (SQLSTATE 22003)"));
    // Their second events wait behind the first.
    assert_eq!(world.conservation().await, [400, 394, 0, 0, 0, 3, 3]);
    assert_eq!(instance.refusal("/orders/unstorable-31", 404).await["held"]["reason"], "poison");
    assert_eq!(until_published(&world, 3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_event_that_only_postgres_refuses_is_refused_when_its_turn_comes() {
    let world = World::new(1).await;
    refuse_to_store(&world, 1, "new.sequence = 4").await;
    let instance = world.start().await;
    let events: Vec<TestEvent> =
        std::iter::once(created("o-1")).chain((2..=6).map(|sequence| item_added("o-1", sequence))).collect();
    world.publish(events.iter().filter(|event| event.sequence != 2).map(TestEvent::record)).await;
    world.until_consumed(5).await;
    world.publish([&events[1], &created("o-2")].map(TestEvent::record)).await;

    let order = instance.order_at("o-1", 3).await;
    instance.order_at("o-2", 1).await;

    until("the event is refused", PATIENCE, || async {
        (world.number("select count(*) from dead_letters where sequence = 4").await == 1).then_some(())
    })
    .await;
    assert_eq!(order["orderId"], "o-1");
    let held = instance.json("/orders/o-1").await["held"].clone();
    assert_eq!((&held["reason"], &held["missingFrom"], &held["parkedCount"]), (&"poison".into(), &4.into(), &2.into()));
    assert_eq!(world.conservation().await, [7, 4, 0, 0, 0, 2, 1]);
    instance.until_running().await;
    assert_eq!(until_published(&world, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_event_that_only_postgres_refuses_takes_no_time_of_the_records_behind_its_gap() {
    const OTHERS: i64 = 400;
    let world = World::new(1).await;
    refuse_to_store(&world, 1, "new.sequence = 3").await;
    let instance = world.start().await;
    world.publish([created("o-1"), item_added("o-1", 3), item_added("o-1", 4)].iter().map(TestEvent::record)).await;
    world.until_consumed(3).await;
    instance.stop().await;

    // All of them are in the log when the projector begins, so they come in a batch, or a few.
    let others = (0..OTHERS).map(|number| created(&format!("other-{number}")).record());
    world.publish(std::iter::once(item_added("o-1", 2).record()).chain(others)).await;
    let instance = world.start().await;
    until("the event is refused", PATIENCE, || async {
        (world.number("select count(*) from dead_letters where key = 'o-1' and sequence = 3").await == 1).then_some(())
    })
    .await;
    world.until_consumed(OTHERS + 4).await;

    let commits = world.number("select count(distinct commit) from orders_1.ledger where key like 'other-%'").await;
    assert!(commits < OTHERS / 10, "{OTHERS} orders took {commits} commits");
    let held = instance.json("/orders/o-1").await["held"].clone();
    assert_eq!((&held["reason"], &held["missingFrom"], &held["parkedCount"]), (&"poison".into(), &3.into(), &1.into()));
    assert_eq!(world.conservation().await, [OTHERS + 4, OTHERS + 2, 0, 0, 0, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_type_from_a_header_has_the_same_bounds_as_from_the_payload() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let typed = |order: &str, sequence: i64, event_type: &[u8]| {
        let mut event = status_changed(order, sequence, "Paid");
        event.body.as_object_mut().unwrap().remove("type");
        let mut record = event.record();
        record.headers.push(("x-event-type".to_owned(), event_type.to_vec()));
        record
    };
    let long = "x".repeat(257);
    // The first and second are ahead of a gap: they must not lie in wait there either.
    world
        .publish([
            typed("o-1", 2, b"Gift\0Wrapped"),
            typed("o-2", 2, long.as_bytes()),
            typed("o-3", 1, b"OrderStatusChanged"),
            typed("o-4", 1, b"Gift\0Wrapped"),
            typed("o-5", 1, b""),
            created("o-6").record(),
        ])
        .await;
    world.until_consumed(6).await;

    let letters = until_published(&world, 4).await;
    let reasons: Vec<String> = letters.values().map(|letter| header(letter, "x-dlq-reason").unwrap()).collect();
    assert_eq!(reasons, ["unrepresentable", "schema_violation", "unrepresentable", "missing_type"]);
    assert_eq!(instance.json("/orders/o-3").await["status"], "Paid");
    assert_eq!(world.conservation().await, [6, 2, 0, 0, 0, 0, 4]);
}

/// Waits until everything is relayed; then the letters on the DLQ topic, by offset of their record: exactly so many.
async fn until_published(world: &World, letters: usize) -> BTreeMap<i64, OwnedMessage> {
    until(&format!("{letters} dead letters are published"), PATIENCE, || async {
        (world.number("select count(*) from dead_letters where published_at is not null").await == letters as i64)
            .then_some(())
    })
    .await;
    let messages = world.dead_letters_on_topic();
    assert_eq!(messages.len(), letters, "messages on the DLQ topic");
    let by_offset: BTreeMap<i64, OwnedMessage> = messages
        .into_iter()
        .map(|message| (header(&message, "x-original-offset").unwrap().parse().unwrap(), message))
        .collect();
    assert_eq!(by_offset.len(), letters, "an offset twice on the DLQ topic");
    by_offset
}

/// Key, value and headers are those of the record, headers first and in order.
fn assert_is_original(letter: &OwnedMessage, record: &TestRecord) {
    assert_eq!(letter.key(), record.key.as_deref());
    assert!(letter.payload() == record.payload.as_deref(), "the value differs");
    let headers = letter.headers().unwrap();
    for (index, (name, value)) in record.headers.iter().enumerate() {
        let header = headers.get(index);
        assert_eq!((header.key, header.value.unwrap_or_default()), (name.as_str(), value.as_slice()));
    }
}

/// Every header that our operators, Spring's and Kafka Connect's tools look for.
fn assert_tells_where_from(letter: &OwnedMessage, topic: &str, offset: i64, reason: &str, error: &str) {
    let text = |name: &str| header(letter, name).unwrap_or_else(|| panic!("header {name} is missing"));
    for name in ["x-dlq-error", "kafka_dlt-exception-message", "__connect.errors.exception.message"] {
        assert_eq!(text(name), error, "{name}");
    }
    for name in ["x-original-topic", "kafka_dlt-original-topic", "__connect.errors.topic"] {
        assert_eq!(text(name), topic, "{name}");
    }
    for (name, value) in [
        ("x-dlq-reason", reason),
        ("x-dlq-view", "orders"),
        ("x-original-partition", "0"),
        ("__connect.errors.partition", "0"),
        ("__connect.errors.connector.name", "orders"),
    ] {
        assert_eq!(text(name), value, "{name}");
    }
    for name in ["x-original-offset", "__connect.errors.offset"] {
        assert_eq!(text(name), offset.to_string(), "{name}");
    }
    assert!(text("x-dlq-at").parse::<jiff::Timestamp>().is_ok());
    let timestamp: i64 = text("x-original-timestamp").parse().unwrap();
    let binary = |name: &str| {
        let headers = letter.headers().unwrap();
        headers.iter().find(|header| header.key == name).and_then(|header| header.value).map(<[u8]>::to_vec)
    };
    assert_eq!(binary("kafka_dlt-original-partition"), Some(0i32.to_be_bytes().to_vec()));
    assert_eq!(binary("kafka_dlt-original-offset"), Some(offset.to_be_bytes().to_vec()));
    assert_eq!(binary("kafka_dlt-original-timestamp"), Some(timestamp.to_be_bytes().to_vec()));
}

/// Key, reason and missing sequence of every held order.
async fn held_keys(world: &World) -> Vec<(String, String, i64)> {
    let rows = world.sql.query("select key, reason, missing_from from held_keys order by key", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}
