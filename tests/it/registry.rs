//! The schema registry in its bad hours: partitions wait, known schemas go on, and nothing is refused that is not the
//! record's own fault.

use serde_json::{Value, json};
use streamview::schemas::subjects::Format;
use streamview_lab::servers::RegistryOptions;

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, life, oracle, status_changed, stored};
use crate::support::registry::{self, Fault, Proxy, avro_body, framed, register};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};
use crate::unreadable::until_paused;

pub const STATUS: &str = include_str!("../../schemas/avro/order_status_changed.avsc");
pub const NO_GRACE: (&str, &str) = ("STREAMVIEW_SCHEMA_REGISTRY__NOT_FOUND_GRACE_MS", "0");

/// The status event's schema with a further field: another id each time.
fn status_schema(extra: &str) -> String {
    let mut schema: Value = serde_json::from_str(STATUS).unwrap();
    let field = json!({ "name": extra, "type": "long", "default": 0 });
    schema["fields"].as_array_mut().unwrap().push(field);
    schema.to_string()
}

pub fn avro_record(event: &TestEvent, id: u32, schema: &str) -> TestRecord {
    let schema = apache_avro::Schema::parse_str(schema).unwrap();
    TestRecord { payload: Some(framed(id, avro_body(&schema, None, &event.body))), ..event.record() }
}

pub async fn start(world: &World, url: &str, settings: &[(&str, &str)]) -> Instance {
    let own = [("STREAMVIEW_SCHEMA_REGISTRY__URL", url), ("STREAMVIEW_SCHEMA_REGISTRY__TIMEOUT_MS", "2000")];
    world.start_with(&[&own, settings].concat()).await
}

pub async fn until_waiting(instance: &Instance, reason: &str) {
    until(&format!("the view waits for the registry: {reason}"), PATIENCE, || async {
        let answer = instance.http.get(instance.url("/ops/consumer")).send().await.ok()?;
        let view = &answer.json::<Value>().await.ok()?["views"][0];
        let waits = view["state"] == "waiting_for_registry";
        (waits && view["reason"].as_str().is_some_and(|text| text.contains(reason))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_registry_is_waited_for_while_known_schemas_go_on() {
    let Some(real) = registry::shared() else { return };
    let proxy = Proxy::start(real).await;
    let world = World::new(1).await;
    let subject = format!("{}-value", world.topic);
    let known = register(real, &subject, Format::Avro, STATUS).await;
    let instance = start(&world, &proxy.url, &[]).await;
    let first = created("o-1");
    world.publish([first.record(), avro_record(&status_changed("o-1", 2, "known"), known, STATUS)]).await;
    instance.order_at("o-1", 2).await;

    const JSON: &str = "application/json";
    let table = [
        (Fault::Down, "does not answer"),
        (Fault::Slow, "does not answer"),
        (Fault::Answer(401, "text/plain", "Unauthorized"), "refuses us (401)"),
        (Fault::Answer(403, JSON, r#"{"error_code":40301,"message":"no"}"#), "refuses us (403)"),
        (Fault::Answer(429, JSON, r#"{"error_code":42901,"message":"slow down"}"#), "429: slow down"),
        (Fault::Answer(500, JSON, r#"{"error_code":50001,"message":"store is broken"}"#), "500: store is broken"),
        (Fault::Answer(503, "text/html", "<html>busy</html>"), "answers 503"),
        (Fault::Answer(504, "text/html", "<html>gateway</html>"), "answers 504"),
        (Fault::Answer(200, "text/html", "<html>please log in</html>"), "does not speak as a schema registry"),
        (Fault::Answer(302, "text/html", ""), "does not speak as a schema registry"),
        (Fault::Answer(404, "text/html", "<html>no such page</html>"), "does not speak as a schema registry"),
        (Fault::Answer(404, JSON, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#), "does not speak"),
    ];
    let mut events = vec![first, status_changed("o-1", 2, "known")];
    for (row, (fault, reason)) in table.into_iter().enumerate() {
        let schema = status_schema(&format!("row{row}"));
        let id = register(real, &subject, Format::Avro, &schema).await;
        let next = 3 + 2 * row as i64;
        let (cached, new) = (status_changed("o-1", next, "known"), status_changed("o-1", next + 1, "new"));
        proxy.inject(fault);
        let asked = proxy.requests();
        world.publish([avro_record(&cached, known, STATUS)]).await;
        instance.order_at("o-1", next).await;
        assert_eq!(proxy.requests(), asked, "{fault:?}: a known schema is not asked for again");

        world.publish([avro_record(&new, id, &schema)]).await;
        until_waiting(&instance, reason).await;
        assert_eq!(world.number("select count(*) from dead_letters").await, 0, "{fault:?}");
        proxy.inject(Fault::None);
        instance.order_at("o-1", next + 1).await;
        events.extend([cached, new]);
    }
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
    instance.until_running().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_before_the_one_that_waits_are_applied_and_a_restart_waits_again() {
    let Some(real) = registry::shared() else { return };
    let proxy = Proxy::start(real).await;
    let world = World::new(1).await;
    let id = register(real, &format!("{}-value", world.topic), Format::Avro, STATUS).await;
    proxy.inject(Fault::Down);
    let events = [created("o-1"), status_changed("o-1", 2, "Paid"), created("o-2")];
    let framed = avro_record(&events[1], id, STATUS);
    world.publish([events[0].record_on(0), TestRecord { partition: Some(0), ..framed }, events[2].record_on(0)]).await;
    let instance = world.launch(&[("STREAMVIEW_SCHEMA_REGISTRY__URL", &proxy.url)]);
    until("the record before it is applied", PATIENCE, || async { (world.consumed().await == 1).then_some(()) }).await;
    until_waiting(&instance, "does not answer").await;
    assert!(!instance.is_ready().await);
    instance.stop().await;

    let instance = world.launch(&[("STREAMVIEW_SCHEMA_REGISTRY__URL", &proxy.url)]);
    until_waiting(&instance, "does not answer").await;
    proxy.inject(Fault::None);
    world.until_consumed(3).await;
    assert_eq!(stored(&world).await, oracle(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_needs_its_schema_again_after_a_restart_and_waits_for_it() {
    let Some(real) = registry::shared() else { return };
    let proxy = Proxy::start(real).await;
    let world = World::new(1).await;
    let id = register(real, &format!("{}-value", world.topic), Format::Avro, STATUS).await;
    let events = [created("o-1"), status_changed("o-1", 2, "Paid"), status_changed("o-1", 3, "Packed")];
    let instance = start(&world, &proxy.url, &[]).await;
    world.publish(events[1..].iter().map(|event| avro_record(event, id, STATUS))).await;
    world.until_consumed(2).await;
    instance.stop().await;

    proxy.inject(Fault::Down);
    let instance = start(&world, &proxy.url, &[]).await;
    // The missing event itself needs no schema; those that it sets free do.
    world.publish([events[0].record()]).await;
    until_waiting(&instance, "does not answer").await;
    assert_eq!(world.consumed().await, 2);
    proxy.inject(Fault::None);
    instance.order_at("o-1", 3).await;
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_turns_up_late_is_waited_for() {
    let Some(registry) = registry::own(&RegistryOptions::default()) else { return };
    let world = World::new(1).await;
    let instance = start(&world, &registry.url(), &[]).await;
    let events = [created("o-1"), status_changed("o-1", 2, "Paid")];
    // The first id of an empty registry.
    world.publish([events[0].record(), avro_record(&events[1], 1, STATUS)]).await;
    let paused = until_paused(&instance, 0, "schema_not_found").await;
    assert!(paused.contains("40403") && paused.contains("not_found_grace_ms"), "{paused}");
    assert_eq!(register(&registry.url(), "late", Format::Avro, STATUS).await, 1);
    instance.order_at("o-1", 2).await;
    assert_eq!(stored(&world).await, oracle(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_never_turns_up_stops_its_partition_or_by_policy_refuses_the_record() {
    let Some(real) = registry::shared() else { return };
    let world = World::new(1).await;
    let instance = start(&world, real, &[NO_GRACE]).await;
    let lost = avro_record(&status_changed("o-1", 2, "Paid"), 999_999, STATUS);
    world.publish([created("o-1").record(), lost]).await;
    let detail = until_paused(&instance, 0, "schema_not_found").await;
    assert!(detail.contains("schema 999999 of the record at partition 0, offset 1"), "{detail}");
    assert!(detail.contains("schema_registry.not_found = dead_letter"), "{detail}");
    instance.stop().await;

    let policy = ("STREAMVIEW_SCHEMA_REGISTRY__NOT_FOUND", "dead_letter");
    let instance = start(&world, real, &[NO_GRACE, policy]).await;
    world.publish([created("o-2").record(), status_changed("o-1", 2, "Paid").record()]).await;
    instance.order_at("o-2", 1).await;
    // The same event in a form that can be read releases the order.
    instance.order_at("o-1", 2).await;
    let letters = world.sql.query("select reason, \"offset\" from dead_letters", &[]).await.unwrap();
    assert_eq!((letters.len(), letters[0].get::<_, &str>(0)), (1, "schema_not_found"));
    assert_eq!(letters[0].get::<_, i64>(1), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_framed_record_without_a_configured_registry_stops_nobody_and_is_redriven_with_one() {
    let Some(real) = registry::shared() else { return };
    let world = World::new(1).await;
    let id = register(real, &world.topic, Format::Avro, STATUS).await;
    let instance = world.start().await;
    world.publish([created("o-1").record(), avro_record(&status_changed("o-1", 2, "Paid"), id, STATUS)]).await;
    world.publish([created("o-2").record()]).await;
    instance.order_at("o-2", 1).await;
    let letter = world.row("select reason, error from dead_letters").await;
    assert_eq!(letter.get::<_, &str>(0), "unsupported_schema");
    assert!(letter.get::<_, &str>(1).contains("schema_registry.url"), "{}", letter.get::<_, &str>(1));
    instance.stop().await;

    let instance = start(&world, real, &[]).await;
    let all = serde_json::json!({ "filter": { "reason": "unsupported_schema" }, "reason": "registry configured", "expect": 1 });
    instance.posted("/ops/dead-letters/redrive", &all, 202).await;
    assert_eq!(instance.order_at("o-1", 2).await["status"], "Paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_of_its_schema_is_refused_and_holds_its_order() {
    let Some(real) = registry::shared() else { return };
    let world = World::new(1).await;
    let avro = register(real, &format!("{}-a", world.topic), Format::Avro, STATUS).await;
    let text = register(real, &format!("{}-b", world.topic), Format::Avro, "\"string\"").await;
    let json = register(real, &format!("{}-c", world.topic), Format::Json, r#"{"type":"object"}"#).await;
    let protobuf = protobuf_id(real, &world.topic).await;
    let event = |order: &str| status_changed(order, 1, "Paid");
    let payload =
        |order: &str, id, body: &[u8]| TestRecord { payload: Some(framed(id, body.to_vec())), ..event(order).record() };
    let good = avro_record(&event("o-3"), avro, STATUS).payload.unwrap();
    let typed = |order: &str| TestRecord {
        headers: [event(order).record().headers, vec![("x-event-type".to_owned(), b"OrderCreated".to_vec())]].concat(),
        ..avro_record(&event(order), avro, STATUS)
    };
    let table = [
        (payload("o-0", avro, b"\x02"), "invalid_avro"),
        (payload("o-1", text, b"\x02a"), "unsupported_schema"),
        (payload("o-2", protobuf, b"\0"), "unsupported_schema"),
        (payload("o-3", avro, &[&good[5..], b"\0"].concat()), "invalid_avro"),
        (payload("o-4", json, b"{"), "invalid_json"),
        (payload("o-5", json, b"{\"type\":\"OrderStatusChanged\"}"), "schema_violation"),
        (TestRecord { key: Some(b"o-6".to_vec()), ..avro_record(&event("o-x"), avro, STATUS) }, "key_mismatch"),
        (typed("o-7"), "type_mismatch"),
    ];
    let instance = start(&world, real, &[]).await;
    world.publish(table.iter().map(|(record, _)| record.clone())).await;
    world.until_consumed(table.len() as i64).await;
    let rows = world.sql.query("select reason, key, payload from dead_letters order by key", &[]).await.unwrap();
    let reasons: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(reasons, table.each_ref().map(|(_, reason)| *reason));
    assert_eq!(rows[0].get::<_, Vec<u8>>(2), framed(avro, vec![2]), "the original bytes are kept");
    assert_eq!(world.number("select count(*) from held_keys").await, table.len() as i64);
    drop(instance);
}

async fn protobuf_id(registry: &str, topic: &str) -> u32 {
    use streamview::schemas::client::Method;
    let body = json!({ "schemaType": "PROTOBUF", "schema": "syntax = \"proto3\"; message A { string b = 1; }" });
    let path = format!("/subjects/{topic}-p/versions");
    let answer: Value = registry::client(registry).send(Method::POST, &path, Some(&body)).await.unwrap();
    answer["id"].as_u64().unwrap() as u32
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_authentication_a_token_and_a_private_authority_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, issued.cert.pem()).unwrap();
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    let options = RegistryOptions {
        login: Some(("reader".to_owned(), "s3cret-Pass".to_owned())),
        tls: Some((certificate.clone(), key)),
        ..RegistryOptions::default()
    };
    let (Some(real), Some(locked)) = (registry::shared(), registry::own(&options)) else { return };
    let world = World::new(1).await;
    let url = locked.url();
    let login = [
        ("STREAMVIEW_SCHEMA_REGISTRY__URL", url.as_str()),
        ("STREAMVIEW_SCHEMA_REGISTRY__USERNAME", "reader"),
        ("STREAMVIEW_SCHEMA_REGISTRY__CA_FILE", certificate.to_str().unwrap()),
    ];
    let wrong = [&login[..], &[("STREAMVIEW_SCHEMA_REGISTRY__PASSWORD", "wrong")]].concat();
    let right = [&login[..], &[("STREAMVIEW_SCHEMA_REGISTRY__PASSWORD", "s3cret-Pass")]].concat();
    // Our own command is the producer that registers.
    let topic = ("STREAMVIEW_VIEWS__ORDERS__TOPIC", world.topic.as_str());
    let registering = world.launch_command(&["schemas", "register"], &[&right[..], &[topic]].concat());
    let status = registering.until_ended().await;
    assert!(status.success(), "{}", registering.log_text());
    let id: u32 = registering.log_text().trim().rsplit_once("as id ").unwrap().1.parse().unwrap();
    let schema = streamview::views::orders::subjects::subjects(
        Format::Avro,
        streamview::schemas::subjects::Strategy::Topic,
        2,
        &world.topic,
    );
    let schema = apache_avro::Schema::parse_str(&schema[0].schema).unwrap();
    let events = [created("o-1"), status_changed("o-1", 2, "Paid"), status_changed("o-1", 3, "Sent")];
    let union =
        TestRecord { payload: Some(framed(id, avro_body(&schema, Some(2), &events[1].body))), ..events[1].record() };
    world.publish([events[0].record(), union]).await;

    let instance = world.launch(&wrong);
    until_waiting(&instance, "refuses us (401)").await;
    assert!(!instance.log_text().contains("wrong"), "a password stands in the log");
    instance.stop().await;
    let instance = world.launch(&login[..2]);
    until_waiting(&instance, "does not answer").await; // the platform does not know that authority
    instance.stop().await;
    let instance = world.start_with(&right).await;
    instance.order_at("o-1", 2).await;
    instance.stop().await;

    let proxy = Proxy::start(real).await;
    proxy.inject(Fault::Bearer("t0ken"));
    let id = register(real, &format!("{}-value", world.topic), Format::Avro, STATUS).await;
    world.publish([avro_record(&events[2], id, STATUS)]).await;
    // Not awaited until ready: it may wait for the registry before anybody has looked.
    let instance = world.launch(&[("STREAMVIEW_SCHEMA_REGISTRY__URL", &proxy.url)]);
    until_waiting(&instance, "refuses us (401)").await;
    instance.stop().await;
    let instance = start(&world, &proxy.url, &[("STREAMVIEW_SCHEMA_REGISTRY__BEARER_TOKEN", "t0ken")]).await;
    instance.order_at("o-1", 3).await;
    assert_eq!(stored(&world).await, oracle(&events));
}

/// A load keeps its keys in memory only. What is loaded beside them, here a decision whose schema cannot be had now, must
/// not cost it those of the batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_whose_registry_falters_behind_a_decision_ends_rather_than_forget_keys() {
    let Some(real) = registry::shared() else { return };
    let world = World::new(1).await;
    let id = register(real, &world.topic, Format::Avro, STATUS).await;
    let other = life("o-2", 20);
    let log = other[..10].iter().map(TestEvent::record).chain([created("o-1").record()]);
    let log = log.chain(other[10..].iter().map(TestEvent::record));
    world.publish(log.chain([avro_record(&status_changed("o-1", 2, "Paid"), id, STATUS)])).await;
    let instance = world.start().await;
    world.until_consumed(22).await;
    instance.stop().await;
    let instance = start(&world, real, &[]).await;
    let all = serde_json::json!({ "filter": { "reason": "unsupported_schema" }, "reason": "registry configured", "expect": 1 });
    instance.posted("/ops/dead-letters/redrive", &all, 202).await;
    instance.order_at("o-1", 2).await;
    instance.stop().await;
    let expected = stored(&world).await;
    // As after a load that was cut short: everything is loaded anew, and the decision stands.
    world.sql.batch_execute("update view_builds set loading_since = now()").await.unwrap();

    let proxy = Proxy::start(real).await;
    proxy.inject(Fault::Answer(503, "text/plain", "not now"));
    let settings = [
        ("STREAMVIEW_SCHEMA_REGISTRY__URL", proxy.url.as_str()),
        ("STREAMVIEW_PROJECTOR__LANES", "1"),
        ("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", "4"),
    ];
    let load = world.launch_command(&["load"], &settings);
    until("the registry was asked", PATIENCE, || async { (proxy.requests() > 0).then_some(()) }).await;
    proxy.inject(Fault::None);
    let ended = load.until_ended().await;
    assert!(!ended.success() && load.log_text().contains("503"), "{}", load.log_text());

    let again = world.launch_command(&["load"], &settings);
    assert!(again.until_ended().await.success(), "{}", again.log_text());
    assert_eq!(stored(&world).await, expected);
}
