//! Values that are not what their first bytes say, schemas that no registry knows, and schemas named in a header: each is
//! the fault of one record or of one partition, and nobody else waits for it.

use serde_json::{Value, json};
use streamview::schemas::subjects::Format;
use streamview_lab::servers::RegistryOptions;

use crate::registry::{NO_GRACE, STATUS, avro_record, start, until_waiting};
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, oracle, status_changed, stored};
use crate::support::registry::{self, Fault, Proxy, avro_body, framed, register};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};
use crate::unreadable::{refused, skip_to, until_paused};

const GUID: u128 = 0x0123_4567_89ab_4cde_8f01_2345_6789_abcd;

fn with_value(order: &str, payload: Vec<u8>) -> TestRecord {
    TestRecord { payload: Some(payload), ..created(order).record_on(0) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_too_large_is_its_records_fault_and_nobody_waits() {
    let references =
        (0..65).map(|number| json!({ "name": format!("r{number}"), "subject": format!("r{number}"), "version": 1 }));
    let referring = json!({ "schema": "\"int\"", "references": references.collect::<Vec<_>>() });
    let large = json!({ "schema": " ".repeat(4 * 1024 * 1024) });
    let (world, proxy) = (World::new(2).await, Proxy::start("http://nowhere").await);
    // One lane for both partitions: whoever waits has everybody wait.
    let instance = start(&world, &proxy.url, &[("STREAMVIEW_PROJECTOR__LANES", "1")]).await;
    for (id, (answer, words)) in
        (1..).zip([(referring, "refers to more than 64 others"), (large, "more than 4194304 bytes")])
    {
        const KIND: &str = "application/vnd.schemaregistry.v1+json";
        proxy.inject(Fault::Answer(200, KIND, answer.to_string().leak()));
        let (bad, good) = (format!("bad-{id}"), format!("good-{id}"));
        world.publish([with_value(&bad, framed(id, b"body".to_vec())), created(&good).record_on(1)]).await;
        instance.order_at(&good, 1).await;
        let letter = until("it is refused", PATIENCE, || async {
            letters(&world).await.into_iter().find(|(key, ..)| *key == bad)
        });
        let (_, reason, error) = letter.await;
        assert!(reason == "unsupported_schema" && error.contains(words), "{reason}: {error}");
    }
    assert_eq!(instance.state().await.0, "running");
}

/// What the API shows of the letters, by key.
async fn letters(world: &World) -> Vec<(String, String, String)> {
    let rows = world.sql.query("select key, reason, error from dead_letters order by key", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_a_frame_is_its_records_fault_and_no_registry_is_asked() {
    let Some(real) = registry::shared() else { return };
    let proxy = Proxy::start(real).await;
    // Whoever asked it would wait for ever.
    proxy.inject(Fault::Down);
    let world = World::new(1).await;
    let instance = start(&world, &proxy.url, &[]).await;
    let text = |order: &str| created(order).body.to_string();
    let marked = [b"\xef\xbb\xbf", text("o-9").as_bytes()].concat();
    let table = [
        (
            with_value("o-1", text("o-1").encode_utf16().flat_map(u16::to_be_bytes).collect()),
            "invalid_json",
            "UTF-16BE",
        ),
        (
            with_value("o-2", text("o-2").chars().flat_map(|c| (c as u32).to_be_bytes()).collect()),
            "invalid_json",
            "UTF-32BE",
        ),
        (with_value("o-3", framed(1 << 31, b"body".to_vec())), "unsupported_schema", "2147483648 is no schema id"),
        (with_value("o-4", framed(u32::MAX, b"body".to_vec())), "unsupported_schema", "4294967295 is no schema id"),
        (with_value("o-5", framed(0, b"body of eight".to_vec())), "unsupported_schema", "ids of eight bytes"),
        (with_value("o-6", 5_i64.to_be_bytes().to_vec()), "unsupported_schema", "0 is no schema id"),
    ];
    world.publish(table.iter().map(|(record, ..)| record.clone())).await;
    world.publish([with_value("o-9", marked)]).await;
    instance.order_at("o-9", 1).await;
    assert_eq!(proxy.requests(), 0);
    let letters = letters(&world).await;
    assert_eq!(letters.len(), table.len(), "{letters:?}");
    for ((_, reason, error), (_, expected, words)) in letters.iter().zip(&table) {
        assert!(reason == expected && error.contains(words), "{reason}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uuid_or_a_number_that_looks_like_a_frame_is_refused_as_soon_as_the_registry_does_not_know_it() {
    let Some(real) = registry::shared() else { return };
    let world = World::new(1).await;
    // With the time of grace that is the default, and the policy that stops.
    let instance = start(&world, real, &[]).await;
    let uuid = 0x0051_4567_89ab_7cde_8f01_2345_6789_abcd_u128.to_be_bytes().to_vec();
    let number = 1_700_000_000_123_i64.to_be_bytes().to_vec();
    world.publish([with_value("o-1", uuid), with_value("o-2", number), created("o-3").record_on(0)]).await;
    instance.order_at("o-3", 1).await;
    let letters = letters(&world).await;
    assert!(letters.iter().all(|(_, reason, _)| reason == "unsupported_schema"), "{letters:?}");
    assert!(letters[0].2.contains("a UUID as 16 bytes") && letters[1].2.contains("a number as 8 bytes"), "{letters:?}");

    // What one value looks like says nothing of another one that names the same schema.
    let number = framed(88_888, vec![1, 2, 3]);
    let event = TestRecord { partition: Some(0), ..avro_record(&status_changed("o-3", 2, "Paid"), 88_888, STATUS) };
    world.publish([with_value("o-4", number), event]).await;
    let paused = until_paused(&instance, 0, "schema_not_found").await;
    assert!(paused.contains("partition 0, offset 4"), "{paused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_schema_stops_its_partition_only_until_an_operator_gives_the_record_up() {
    let Some(real) = registry::shared() else { return };
    let world = World::new(2).await;
    // Both partitions in one lane: it must not stand still for one of them.
    let instance = start(&world, real, &[NO_GRACE, ("STREAMVIEW_PROJECTOR__LANES", "1")]).await;
    let lost = TestRecord { partition: Some(0), ..avro_record(&status_changed("o-1", 2, "Paid"), 999_998, STATUS) };
    world.publish([created("o-1").record_on(0), lost, created("o-2").record_on(0), created("o-3").record_on(1)]).await;
    instance.order_at("o-3", 1).await;
    instance.order_at("o-1", 1).await;
    let paused = until_paused(&instance, 0, "schema_not_found").await;
    assert!(paused.contains("schema 999998 of the record at partition 0, offset 1"), "{paused}");
    assert!(paused.contains("/ops/partitions/0/skip-to, from offset 1 to 2"), "{paused}");
    instance.until_running().await;
    instance.until_ready().await;
    world.publish([TestRecord { partition: Some(1), ..status_changed("o-3", 2, "Paid").record() }]).await;
    instance.order_at("o-3", 2).await;
    assert!(!stored(&world).await.contains_key("o-2"), "behind the record nothing is applied");

    let ask = || {
        let body = json!({ "from": 1, "to": 2, "reason": "nobody knows the producer", "actor": "test" });
        skip_to(&instance, 0, body)
    };
    let answer = until("the stop is noted", PATIENCE, || async {
        let answer = ask().await;
        (answer.status().as_u16() == 200).then_some(answer)
    });
    let answer: Value = answer.await.json().await.unwrap();
    assert_eq!((&answer["skippedOffsets"], &answer["from"]), (&json!(1), &json!(1)));
    let why = answer["stoppedBy"].as_str().unwrap();
    assert!(why.starts_with("schema_not_found: schema 999998"), "{why}");
    instance.order_at("o-2", 1).await;
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
    let again: Value = ask().await.json().await.unwrap();
    assert_eq!(again, answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_event_whose_schema_is_gone_holds_its_own_order_only() {
    let (Some(first), Some(second)) =
        (registry::own(&RegistryOptions::default()), registry::own(&RegistryOptions::default()))
    else {
        return;
    };
    let world = World::new(1).await;
    let id = register(&first.url(), "gone", Format::Avro, STATUS).await;
    let events = [created("o-1"), status_changed("o-1", 2, "Paid"), created("o-2")];
    let instance = start(&world, &first.url(), &[]).await;
    world.publish([avro_record(&events[1], id, STATUS)]).await;
    world.until_consumed(1).await;
    instance.stop().await;

    // Another registry, which has never seen it.
    let instance = start(&world, &second.url(), &[]).await;
    world.publish([events[0].record(), events[2].record()]).await;
    instance.order_at("o-2", 1).await;
    instance.order_at("o-1", 1).await;
    let (key, reason, _) = letters(&world).await.remove(0);
    assert_eq!((key.as_str(), reason.as_str()), ("o-1", "schema_not_found"));
    instance.stop().await;

    let instance = start(&world, &first.url(), &[]).await;
    let all = json!({ "filter": { "reason": "schema_not_found" }, "reason": "the right registry", "expect": 1 });
    instance.posted("/ops/dead-letters/redrive", &all, 202).await;
    instance.order_at("o-1", 2).await;
    assert_eq!(stored(&world).await, oracle(&events));
}

/// An event as Avro without anything before it, its schema named in a header.
fn with_header(event: &TestEvent, header: Vec<u8>) -> TestRecord {
    let schema = apache_avro::Schema::parse_str(STATUS).unwrap();
    let mut record = TestRecord { payload: Some(avro_body(&schema, None, &event.body)), ..event.record() };
    record.headers.push(("__value_schema_id".to_owned(), header));
    record
}

fn guid_header(guid: u128) -> Vec<u8> {
    [&[1][..], &guid.to_be_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_named_in_a_header_is_found_by_its_id_or_its_guid() {
    let Some(real) = registry::shared() else { return };
    let proxy = Proxy::start(real).await;
    let world = World::new(1).await;
    let id = register(real, &format!("{}-value", world.topic), Format::Avro, STATUS).await;
    let json = status_changed("o-1", 2, "Packed");
    let mut plain = json.record();
    plain.headers.push(("__value_schema_id".to_owned(), guid_header(GUID)));
    let events = [created("o-1"), json, status_changed("o-1", 3, "Paid"), status_changed("o-1", 4, "Sent")];
    proxy.inject(Fault::Down);
    let instance = start(&world, &proxy.url, &[]).await;
    world.publish([events[0].record(), plain]).await;
    instance.order_at("o-1", 2).await;
    assert_eq!(proxy.requests(), 0, "plain JSON needs no schema, whatever stands beside it");

    proxy.inject(Fault::GuidIs(id));
    let by_id = [&[0][..], &id.to_be_bytes()].concat();
    world.publish([with_header(&events[2], by_id), with_header(&events[3], guid_header(GUID))]).await;
    instance.order_at("o-1", 4).await;
    assert_eq!(stored(&world).await, oracle(&events));

    // A proxy without its registry answers with the same page as a registry without GUIDs: that is no fault of a record.
    proxy.inject(Fault::Answer(404, "text/html", "no page"));
    world.publish([with_header(&status_changed("o-1", 5, "Lost"), guid_header(GUID + 1))]).await;
    until("the registry is waited for", PATIENCE, || async {
        let (state, _) = instance.state().await;
        let paused = instance.json("/ops/consumer").await["views"][0]["partitions"].to_string();
        assert!(!paused.contains("schema_not_found"), "{paused}");
        (state == "waiting_for_registry").then_some(())
    })
    .await;

    proxy.inject(Fault::None);
    let paused = until_paused(&instance, 0, "schema_not_found").await;
    assert!(paused.contains("01234567-89ab-4cde-8f01-23456789abce") && paused.contains("GUID"), "{paused}");
}

/// What the sentence of a refusal says of a mistake that many make.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_mistake_behind_them() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let body = |order: &str| created(order).body;
    let text = |value: Value| value.to_string().into_bytes();
    let mut untyped = body("o-2");
    untyped.as_object_mut().unwrap().remove("type");
    let mut shouted = with_value("o-2", text(untyped));
    shouted.headers.push(("X-Event-Type".to_owned(), b"OrderCreated".to_vec()));
    let leap = created("o-3").with("occurredAt", "2026-01-01T10:00:60Z".into());
    world.publish([with_value("o-1", text(json!({ "schema": { "type": "struct" }, "payload": body("o-1") })))]).await;
    world.publish([shouted, leap.record_on(0), created("o-4").record_on(0)]).await;
    instance.order_at("o-4", 1).await;
    let letters = letters(&world).await;
    let words = ["value.converter.schemas.enable = false", "a header `X-Event-Type`", "2026-01-01T10:00:60Z"];
    assert_eq!(letters.len(), words.len(), "{letters:?}");
    for ((.., error), words) in letters.iter().zip(words) {
        assert!(error.contains(words), "{error}");
    }
    let problem = instance.refusal("/orders?from=2026-01-01T10:00:60Z", 400).await;
    assert_eq!(problem["code"], "invalid_parameter");
    assert_eq!(instance.get("/orders?from=2016-12-31T23:59:60Z").await.status().as_u16(), 200);
}

/// One registry behind several addresses.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_addresses_of_the_registry_each_is_tried_in_turn() {
    let Some(real) = registry::shared() else { return };
    let (first, second) = (Proxy::start(real).await, Proxy::start(real).await);
    let world = World::new(1).await;
    let subject = format!("{}-value", world.topic);
    let url = format!("{}, {}/", first.url, second.url);
    let instance = start(&world, &url, &[]).await;
    let mut events = vec![created("o-1")];
    world.publish([events[0].record()]).await;
    let faults =
        [Fault::Down, Fault::Slow, Fault::Answer(503, "text/html", "busy"), Fault::Answer(404, "text/html", "no page")];
    for (row, fault) in faults.into_iter().enumerate() {
        // The one that is asked first: where the last answer came from.
        let (broken, whole) = if row % 2 == 0 { (&first, &second) } else { (&second, &first) };
        broken.inject(fault);
        whole.inject(Fault::None);
        let event = status_changed("o-1", 2 + row as i64, "Paid");
        let (id, schema) = registered(real, &subject, row).await;
        let asked = broken.requests();
        world.publish([avro_record(&event, id, &schema)]).await;
        instance.order_at("o-1", 2 + row as i64).await;
        assert!(broken.requests() > asked, "{fault:?}: it was not asked first");
        events.push(event);
    }
    assert_eq!(stored(&world).await, oracle(&events));
    all_are_named_while_none_answers(&instance, &world, (&first, &second)).await;
}

/// The status event's schema with another note each time: another id.
async fn registered(registry: &str, subject: &str, row: usize) -> (u32, String) {
    let mut schema: Value = serde_json::from_str(STATUS).unwrap();
    let field = json!({ "name": format!("row{row}"), "type": "long", "default": 0 });
    schema["fields"].as_array_mut().unwrap().push(field);
    let schema = schema.to_string();
    (register(registry, subject, Format::Avro, &schema).await, schema)
}

async fn all_are_named_while_none_answers(instance: &Instance, world: &World, (first, second): (&Proxy, &Proxy)) {
    first.inject(Fault::Down);
    second.inject(Fault::Answer(503, "text/plain", "busy"));
    world.publish([avro_record(&status_changed("o-2", 1, "Paid"), 77_777, STATUS)]).await;
    until_waiting(instance, &format!("{} does not answer", first.url)).await;
    until_waiting(instance, "answers 503").await;
    // That is no fault of the record: nobody may give it up, and is told what it waits for.
    let from = world.consumed().await;
    let body = json!({ "from": from, "to": from + 1, "reason": "impatience" });
    let problem = until("the end of the log is seen", PATIENCE, || async {
        let answer = skip_to(instance, 0, body.clone()).await;
        (answer.status().as_u16() == 409).then_some(answer)
    });
    let problem = refused(problem.await, 409, "partition_not_blocked").await;
    assert_eq!(problem["title"], "No record stops the partition");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("the view waits: ") && detail.contains("answers 503"), "{detail}");
    // An answer of a registry is final, also if it is no.
    second.inject(Fault::None);
    until_paused(instance, 0, "schema_not_found").await;
}
