//! What operators are promised: everything that is held or refused is shown, and a decision is made once, by the rules,
//! with a trace; from the API and from the command line alike.

use reqwest::Response;
use serde_json::{Value, json};
use streamview::config::{Config, DatabaseSettings, SecretUrl};
use streamview::store::{audit, pool};

use crate::doctor::doctor;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, life};
use crate::support::servers;
use crate::support::world::{TestRecord, World};
use crate::verification::verified;

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

/// The target of a relation in a `Link` header.
fn link(response: &Response, relation: &str) -> Option<String> {
    let links = response.headers()["link"].to_str().unwrap();
    let found = links.split(", ").find(|part| part.ends_with(&format!("; rel=\"{relation}\"")))?;
    Some(found.strip_prefix('<')?.split_once('>')?.0.to_owned())
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

    assert_eq!(instance.json("/orders/gap").await["held"]["href"], "/ops/held/gap");
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

/// Everything that a decision may be told, at once for all routes that decide.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_usable_is_refused_by_name_and_changes_nothing() {
    let world = World::new(1).await;
    let projector = world.start().await;
    two_held_orders(&world).await;
    let api = without_projector(&world, projector).await;
    let letter = world.number("select id from dead_letters").await;

    let long = "x".repeat(501);
    for (path, body, field, allowed) in [
        ("/ops/held/gap/skip", json!({}), "reason", "1 to 500"),
        ("/ops/held/gap/skip", json!({ "reason": " " }), "reason", "1 to 500"),
        ("/ops/held/gap/skip", json!({ "reason": long }), "reason", "1 to 500"),
        ("/ops/held/gap/skip", json!({ "reason": "x", "form": 2 }), "form", "did you mean `from`?"),
        ("/ops/held/gap/skip", json!({ "reason": "x", "from": "2" }), "from", "whole number"),
        ("/ops/held/gap/skip", json!({ "reason": "x", "actor": "a\0b" }), "actor", "1 to 256"),
        ("/ops/held/skip", json!({ "reason": "x" }), "expect", "dry_run=true"),
        ("/ops/held/skip", json!({ "reason": "x", "expect": 1 }), "filter", "any of reason, key"),
        (
            "/ops/held/skip",
            json!({ "reason": "x", "expect": 1, "filter": { "reasons": "gap" } }),
            "filter.reasons",
            "did you mean `reason`?",
        ),
        (
            "/ops/held/skip",
            json!({ "reason": "x", "expect": 1, "filter": { "olderThan": "soon" } }),
            "filter.olderThan",
            "PT15M",
        ),
        (
            "/ops/held/skip",
            json!({ "reason": "x", "expect": 1, "filter": { "olderThan": "P1D", "newerThan": 3600 } }),
            "filter.olderThan",
            "must not be longer ago than `filter.newerThan`",
        ),
        (
            "/ops/dead-letters/redrive",
            json!({ "reason": "x", "expect": 1, "filter": { "olderThan": "P1D", "newerThan": "PT1H" } }),
            "filter.olderThan",
            "must not be longer ago than `filter.newerThan`",
        ),
        (
            "/ops/dead-letters/skip",
            json!({ "reason": "x", "expect": 1, "filter": { "status": "opn" } }),
            "filter.status",
            "open",
        ),
        (
            "/ops/dead-letters/redrive",
            json!({ "reason": "x", "expect": 1, "limit": 0, "filter": {} }),
            "limit",
            "from 1 to 100000",
        ),
    ] {
        let problem = api.posted(path, &body, 400).await;
        assert_eq!(
            (&problem["code"], &problem["errors"][0]["parameter"]),
            (&json!("invalid_body"), &json!(field)),
            "{body}"
        );
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(allowed), "{problem}");
    }
    let replace = format!("/ops/dead-letters/{letter}/replace");
    for body in
        [json!({ "reason": "x" }), json!({ "reason": "x", "payload": [1] }), json!({ "reason": "x", "payload": "" })]
    {
        let problem = api.posted(&replace, &body, 400).await;
        assert_eq!(problem["errors"][0]["parameter"], "payload", "{body}");
    }
    let mismatch = json!({ "reason": "x", "payload": {}, "key": "other" });
    assert!(api.posted(&replace, &mismatch, 400).await["detail"].as_str().unwrap().contains("letter's own is `bad`"));

    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request = api.http.post(api.url("/ops/held/gap/skip")).header("content-type", content_type);
        let response = request.body(why("x").to_string()).send().await.unwrap();
        assert_eq!(response.status(), 415, "{content_type}");
        assert_eq!(response.json::<Value>().await.unwrap()["code"], "unsupported_media_type");
    }
    let huge = json!({ "reason": "x", "payload": "y".repeat(7 << 20) });
    assert_eq!(api.posted(&replace, &huge, 413).await["code"], "body_too_large");
    let spaced = api.post_as("/ops/held/gap/skip", &why("x"), &[("idempotency-key", "a b")]).await;
    assert_eq!(spaced.json::<Value>().await.unwrap()["errors"][0]["parameter"], "Idempotency-Key");
    for path in ["/ops/dead-letters/x/skip", "/ops/dead-letters/0/skip", "/ops/held/gap/skip?dry_run=true"] {
        assert_eq!(api.posted(path, &why("x"), 400).await["code"], "invalid_parameter", "{path}");
    }
    for path in ["/ops/held?reason=bad", "/ops/held?olderThan=soon", "/ops/held?cursor=x", "/ops/dead-letters?status=x"]
    {
        api.refusal(path, 400).await;
    }
    assert_eq!(decisions(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_denied_where_strangers_reach_the_port() {
    let world = World::new(1).await;
    let port = streamview_lab::servers::free_port().unwrap();
    let bind = format!("0.0.0.0:{port}");
    let open = [("STREAMVIEW_HTTP__BIND", bind.as_str()), ("STREAMVIEW_HTTP__ALLOW_ANONYMOUS", "true")];
    // The launch sets its own address: flags beat it.
    let exposed = format!("http.bind={bind}");
    let mut instance = world.launch_command(&["--set", &exposed, "serve"], &open);
    instance.address = format!("127.0.0.1:{port}");
    instance.until_ready().await;
    for path in ["/ops/held/gap/skip", "/ops/dead-letters/1/redrive", "/ops/partitions/0/skip-to"] {
        assert_eq!(instance.posted(path, &why("x"), 403).await["code"], "operations_not_allowed", "{path}");
    }
    assert_eq!(instance.json("/ops/held").await["items"], json!([]));
    instance.stop().await;

    let allowed = [open[0], open[1], ("STREAMVIEW_HTTP__ALLOW_ANONYMOUS_OPERATIONS", "true")];
    let mut instance = world.launch_command(&["--set", &exposed, "serve"], &allowed);
    instance.address = format!("127.0.0.1:{port}");
    instance.until_ready().await;
    assert_eq!(instance.posted("/ops/held/gap/skip", &why("x"), 404).await["code"], "held_key_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_twice_with_the_same_key_and_from_two_clients_at_once_has_one_effect() {
    let world = World::new(1).await;
    let projector = world.start().await;
    let orders: Vec<Vec<TestEvent>> = (0..8).map(|n| life(&format!("o-{n}"), 3)).collect();
    let mut records = Vec::new();
    for events in &orders {
        records.extend([events[0].record(), broken(&events[1]), events[2].record()]);
    }
    world.publish(records).await;
    world.until_consumed(24).await;
    let api = without_projector(&world, projector).await;
    let letters = world.sql.query("select id, key from dead_letters order by key", &[]).await.unwrap();
    let letter = |n: usize| letters[n].get::<_, i64>(0);
    let replacement = json!({ "reason": "mended", "payload": orders[2][1].body });

    let calls = [
        (format!("/ops/held/{}/skip", "o-0"), why("a"), 1),
        (format!("/ops/dead-letters/{}/skip", letter(1)), why("b"), 1),
        (format!("/ops/dead-letters/{}/replace", letter(2)), replacement, 1),
        ("/ops/held/skip".to_owned(), json!({ "reason": "c", "filter": { "key": "o-4" }, "expect": 1 }), 1),
        ("/ops/dead-letters/skip".to_owned(), json!({ "reason": "d", "filter": { "key": "o-5" }, "expect": 1 }), 1),
    ];
    let mut made = 0;
    for (number, (path, body, effect)) in calls.iter().enumerate() {
        let key = format!("key-{number}");
        let headers = [("idempotency-key", key.as_str())];
        // Two clients at the same time.
        let answers = futures_util::future::join_all((0..2).map(|_| api.post_as(path, body, &headers))).await;
        let mut replayed = Vec::new();
        let mut bodies = Vec::new();
        for answer in answers {
            replayed.push(answer.headers().contains_key("idempotent-replayed"));
            assert_eq!(answer.status(), 202, "{path}");
            bodies.push(answer.json::<Value>().await.unwrap());
        }
        replayed.sort_unstable();
        assert_eq!(replayed, [false, true], "{path}");
        assert_eq!(bodies[0], bodies[1], "{path}");
        // And once more, later; with other white space in the body, but for a payload, which is taken as it is written.
        let request = api.http.post(api.url(path)).header("idempotency-key", &key);
        let text =
            if path.ends_with("replace") { body.to_string() } else { serde_json::to_string_pretty(body).unwrap() };
        let again = request.header("content-type", "application/json; charset=utf-8").body(text).send().await.unwrap();
        assert_eq!((again.status().as_u16(), &again.json::<Value>().await.unwrap()), (202, &bodies[0]), "{path}");
        made += effect;
        assert_eq!(decisions(&world).await, made, "{path}");
        // The same key for something else.
        let other = api.post_as("/ops/held/o-7/skip", &why("other"), &headers).await;
        assert_eq!(other.status(), 422);
        assert_eq!(other.json::<Value>().await.unwrap()["code"], "idempotency_key_reused");
    }
    // Different keys, the same thing: one is told that it is decided.
    for path in ["/ops/held/o-6/skip".to_owned(), format!("/ops/dead-letters/{}/skip", letter(7))] {
        let body = why("race");
        let ask = async |key: &str| api.post_as(&path, &body, &[("idempotency-key", key)]).await.status().as_u16();
        let (one, two) = (format!("{path}-1"), format!("{path}-2"));
        let (first, second) = tokio::join!(ask(&one), ask(&two));
        let mut statuses = [first, second];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 409], "{path}");
        made += 1;
    }
    assert_eq!(decisions(&world).await, made);
    assert_eq!(api.metric("streamview_decisions_total", &[]).await, made as f64, "answers given again are not counted");
    let open = api.json("/ops/dead-letters").await;
    assert_eq!(open["items"].as_array().unwrap().len(), 1, "only that of o-3 is left: {open}");
}

/// The table of an upgraded database holds answers of earlier versions: they are given again as they were given then.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_an_earlier_version_has_kept_is_given_again_as_it_is() {
    let world = World::new(1).await;
    let projector = world.start().await;
    two_held_orders(&world).await;
    let api = without_projector(&world, projector).await;
    let headers = [("idempotency-key", "kept")];
    assert_eq!(api.post_as("/ops/held/gap/skip", &why("lost"), &headers).await.status(), 202);
    // What identifies a request is what it asks for, in this form ever since.
    let asked = r#"["orders",{"skip_held":{"key":"gap","from":null,"to":null}},{"reason":"lost","actor":"somebody"}]"#;
    let known = format!("select count(*) from idempotent_calls where request = sha256('{asked}')");
    assert_eq!(world.number(&known).await, 1);
    let older = r#"{"decisions": [], "detail": "in the words of an earlier version", "links": {}, "more": [1, null]}"#;
    let keep = format!("update idempotent_calls set status = 200, answer = '{older}'");
    assert_eq!(world.sql.execute(&keep, &[]).await.unwrap(), 1);

    let again = api.post_as("/ops/held/gap/skip", &why("lost"), &headers).await;
    assert_eq!((again.status().as_u16(), again.headers()["idempotent-replayed"].to_str().unwrap()), (200, "true"));
    assert_eq!(again.json::<Value>().await.unwrap(), serde_json::from_str::<Value>(older).unwrap());
    assert_eq!(decisions(&world).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_key_of_any_characters_is_found_by_its_link_and_decided_about() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let key = "a/skip?b+c%2F100% é";
    let events = life(key, 3);
    world.publish([events[0].record(), events[2].record()]).await;
    world.until_consumed(2).await;
    let href = "/ops/held/a%2Fskip%3Fb%2Bc%252F100%25%20%C3%A9";
    let list = instance.json("/ops/held").await;
    assert_eq!((&list["items"][0]["key"], &list["items"][0]["href"]), (&json!(key), &json!(href)));
    let held = instance.json(href).await;
    assert_eq!((&held["key"], &held["next"][0]["href"]), (&json!(key), &json!(format!("{href}/skip"))));
    // A `+` stands for itself in a path.
    assert_eq!(instance.json(&href.replace("%2B", "+")).await["key"], key);
    for (path, fault) in [("/ops/held/%ff", "%ff"), ("/ops/held/a%00b", "a%00b"), ("/ops/held/%4", "%4")] {
        let refused = instance.refusal(path, 400).await;
        assert_eq!(
            (&refused["errors"][0]["parameter"], &refused["errors"][0]["value"]),
            (&json!("key"), &json!(fault))
        );
    }
    assert_eq!(instance.refusal("/ops/held/a%252Fskip", 404).await["code"], "held_key_not_found");
    let decided = instance.posted(&format!("{href}/skip"), &why("lost"), 202).await;
    assert_eq!(decided["decisions"][0]["key"], key);
    assert_eq!(decided["links"]["held"], href);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_keeps_the_contract_or_is_refused_with_what_is_wrong() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 4);
    let mut bad = broken(&events[1]);
    bad.headers.push(("binary".to_owned(), vec![0xff, 0]));
    let mut nowhere = events[2].record(); // without a number
    nowhere.headers.clear();
    world.publish([events[0].record(), bad, nowhere, events[3].record()]).await;
    world.until_consumed(4).await;
    let ids = world.sql.query("select id from dead_letters order by \"offset\"", &[]).await.unwrap();
    let (bad, nowhere): (i64, i64) = (ids[0].get(0), ids[1].get(0));

    let still = instance.posted(&format!("/ops/dead-letters/{bad}/redrive"), &why("try"), 422).await;
    assert_eq!((&still["code"], &still["reason"]), (&json!("contract_violated"), &json!("invalid_json")));
    let replace = format!("/ops/dead-letters/{bad}/replace");
    let with = |payload: Value| json!({ "reason": "mended", "payload": payload });
    let mut wrong = events[1].body.clone();
    wrong["qty"] = json!(true);
    let violated = instance.posted(&replace, &with(wrong), 422).await;
    assert_eq!(violated["reason"], "schema_violation");
    let violation = violated["violation"].as_str().unwrap();
    assert!(violation.contains("qty") && violation.contains("true") && violation.contains("expected"), "{violation}");
    let mut other = events[1].body.clone();
    other["orderId"] = json!("o-2");
    assert_eq!(instance.posted(&replace, &with(other), 422).await["reason"], "key_mismatch");
    assert_eq!(decisions(&world).await, 0);

    // Digits stay as they were written, whatever a JSON library would make of them.
    let exact = r#"{"type":"OrderItemAdded","eventId":"e-2","occurredAt":"2026-01-01T00:00:02Z","orderId":"o-1","itemId":"i","sku":"S","qty":1,"price":123456789012345678.123456}"#;
    let text = format!(r#"{{"reason":"mended","payload":{exact}}}"#);
    let request = instance.http.post(instance.url(&replace)).header("content-type", "application/json");
    assert_eq!(request.body(text).send().await.unwrap().status(), 202);
    let order = instance.order_at("o-1", 2).await;
    assert_eq!(order["items"][1]["price"], "123456789012345678.123456");
    let headers: Vec<u8> = world.row("select headers from event_decisions").await.get(0);
    let names: Vec<&str> =
        streamview::domain::record::Headers::from_encoded(&headers).iter().map(|header| header.0).collect();
    assert_eq!(names, ["binary", "x-sequence"]);

    // A letter without a number is told its own.
    let replace = format!("/ops/dead-letters/{nowhere}/replace");
    let body = json!({ "reason": "numbered", "payload": events[2].body.to_string() });
    assert!(instance.posted(&replace, &body, 400).await["detail"].as_str().unwrap().contains("`sequence` is missing"));
    let body = json!({ "reason": "numbered", "payload": events[2].body.to_string(), "sequence": 3 });
    instance.posted(&replace, &body, 202).await;
    let order = instance.order_at("o-1", 4).await;
    assert_eq!(order["held"], Value::Null);
    for (letter, status) in [(bad, "replaced"), (nowhere, "replaced")] {
        let shown = instance.json(&format!("/ops/dead-letters/{letter}")).await;
        assert_eq!((&shown["status"], &shown["decision"]["status"]), (&json!(status), &json!("taken")));
        assert_eq!(shown["next"], json!([]));
    }
    assert_eq!(instance.json("/ops/dead-letters").await["items"], json!([]));
    assert_eq!(instance.json("/ops/dead-letters?status=replaced").await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_nobody_waits_for_is_only_closed() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 3);
    let conflict = events[1].clone().with("eventId", json!("another"));
    let nobody = TestRecord { payload: Some(b"{}".to_vec()), ..TestRecord::default() };
    world.publish([events[0].record(), events[1].record(), conflict.record(), nobody]).await;
    world.until_consumed(4).await;
    for row in world.sql.query("select id, reason from dead_letters order by id", &[]).await.unwrap() {
        let (id, reason): (i64, &str) = (row.get(0), row.get(1));
        let shown = instance.json(&format!("/ops/dead-letters/{id}")).await;
        assert_eq!(shown["next"][0]["action"], "skip", "{reason}");
        if reason == "sequence_conflict" {
            let redrive = instance.posted(&format!("/ops/dead-letters/{id}/redrive"), &why("x"), 409).await;
            assert_eq!((&redrive["code"], &redrive["lastSequence"]), (&json!("already_consumed"), &json!(2)));
        }
        let answer = instance.posted(&format!("/ops/dead-letters/{id}/skip"), &why("test data"), 202).await;
        let decision = &answer["decisions"][0];
        assert_eq!((&decision["status"], &decision["key"]), (&json!("closed"), &Value::Null), "{reason}");
        assert_eq!(instance.json(&format!("/ops/dead-letters/{id}")).await["status"], "skipped", "{reason}");
        let again = instance.posted(&format!("/ops/dead-letters/{id}/skip"), &why("x"), 409).await;
        assert_eq!(again["code"], "already_decided");
    }
    world.publish([events[2].record()]).await;
    instance.order_at("o-1", 3).await;
}

/// Orders that wait for their number 2, all with an event parked behind it, as `since` seconds apart as they have numbers.
async fn many_gaps(world: &World, orders: usize) {
    let records = (0..orders).flat_map(|n| {
        let events = life(&format!("o-{n:05}"), 3);
        [events[0].record(), events[2].record()]
    });
    world.publish(records).await;
    world.until_consumed(2 * orders as i64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_keys_and_letters_are_filtered_and_walked_page_by_page() {
    let world = World::new(2).await;
    let projector = world.start().await;
    many_gaps(&world, 210).await;
    let poisoned: Vec<Vec<TestEvent>> = (0..30).map(|n| life(&format!("p-{n:02}"), 2)).collect();
    world.publish(poisoned.iter().flat_map(|events| [events[0].record(), broken(&events[1])])).await;
    world.until_consumed(480).await;
    let api = without_projector(&world, projector).await;
    // Ages that differ, and some that do not.
    let age =
        "update held_keys set since = now() - make_interval(secs => (substring(key from 3)::integer / 10) * 60 + 30)";
    world.sql.execute(age, &[]).await.unwrap();
    let proof = "update held_keys set proven_at = case when key like '%3' then now() end";
    world.sql.execute(proof, &[]).await.unwrap();

    let walk = async |path: &str, id: &str| {
        let (mut next, mut seen) = (Some(path.to_owned()), Vec::new());
        while let Some(path) = next {
            let response = api.get(&path).await;
            assert_eq!(response.status(), 200, "{path}");
            next = link(&response, "next");
            let page: Value = response.json().await.unwrap();
            seen.extend(page["items"].as_array().unwrap().iter().map(|item| item[id].clone()));
        }
        seen
    };
    let stored = async |query: &str| {
        let rows = world.sql.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, Value>(0)).collect::<Vec<_>>()
    };
    let keys = |condition: &str| format!("select to_jsonb(key) from held_keys where {condition} order by since, key");
    for (filter, condition) in [
        ("", "true"),
        ("reason=gap", "reason = 'gap'"),
        ("reason=poison&reason=gap", "true"),
        ("reason=conflict", "false"),
        ("olderThan=PT5M", "since <= now() - interval '5 min'"),
        ("newerThan=300&reason=poison", "since > now() - interval '5 min' and reason = 'poison'"),
        ("key=p-07", "key = 'p-07'"),
        ("olderThan=P1D", "false"),
        ("proven=true", "proven_at is not null"),
        ("proven=false", "proven_at is null"),
    ] {
        let found = walk(&format!("/ops/held?{filter}&pageSize=7"), "key").await;
        assert_eq!(found, stored(&keys(condition)).await, "{filter}");
    }
    assert_eq!(api.json("/ops/held?pageSize=200").await["items"].as_array().unwrap().len(), 200);
    let letters = walk("/ops/dead-letters?reason=invalid_json&pageSize=4", "id").await;
    assert_eq!(letters, stored("select to_jsonb(id) from dead_letters order by id desc").await);
    assert_eq!(letters.len(), 30);
    assert_eq!(walk("/ops/dead-letters?key=p-07", "key").await, [json!("p-07")]);
    assert_eq!(walk("/ops/dead-letters?status=skipped&status=redriven", "id").await, [Value::Null; 0]);
    // Five of them came from another topic, before the view's source was moved.
    let moved =
        "update dead_letters set topic = 'former' where id in (select id from dead_letters order by id limit 5)";
    world.sql.execute(moved, &[]).await.unwrap();
    let of_former = "select to_jsonb(id) from dead_letters where topic = 'former' order by id desc";
    assert_eq!(walk("/ops/dead-letters?topic=former&pageSize=2", "id").await, stored(of_former).await);
    assert_eq!(walk("/ops/dead-letters?topic=forme", "id").await, [Value::Null; 0]);
    let topics = api.json("/ops/dead-letters/topics").await;
    let counted = |at: usize| (topics["items"][at]["topic"].clone(), topics["items"][at]["letters"].clone());
    assert_eq!(counted(0), (json!(world.topic), json!(25)), "{topics}");
    assert_eq!(counted(1), (json!("former"), json!(5)), "{topics}");
    assert_eq!((topics["items"].as_array().unwrap().len(), &topics["partial"]), (2, &json!(false)));
    assert_eq!(api.json("/ops/dead-letters/topics?status=skipped").await["items"], json!([]));
    let told = json!({ "reason": "x", "filter": { "topic": "former" } });
    let told = api.posted("/ops/dead-letters/redrive?dry_run=true", &told, 200).await;
    assert_eq!(told["matched"], 5, "{told}");
    for (path, code) in [
        ("/ops/held?pageSize=201", "invalid_parameter"),
        ("/ops/held?reason=gap&cursor=MS5hYmM", "invalid_cursor"),
        ("/ops/dead-letters?older=1", "invalid_parameter"),
    ] {
        assert_eq!(api.refusal(path, 400).await["code"], code, "{path}");
    }
    // A cursor belongs to its filters.
    let first = api.get("/ops/held?reason=gap&pageSize=7").await;
    let next = link(&first, "next").unwrap();
    assert_eq!(api.refusal(&next.replace("reason=gap", "reason=poison"), 400).await["code"], "invalid_cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_by_filter_is_told_first_and_made_only_of_what_was_told() {
    let world = World::new(1).await;
    let projector = world.start().await;
    two_held_orders(&world).await;
    projector.stop().await;
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;

    let all = json!({ "reason": "cleaning up", "filter": {} });
    let told = api.posted("/ops/held/skip?dry_run=true", &all, 200).await;
    assert_eq!((&told["matched"], &told["possible"], &told["decided"]), (&json!(2), &json!(2), &json!(0)));
    let mut sample = told["sample"].as_array().unwrap().clone(); // the oldest first, but these may be of one batch
    sample.sort_by_key(ToString::to_string);
    assert_eq!((&told["dryRun"], json!(sample)), (&json!(true), json!(["bad", "gap"])));
    assert_eq!(decisions(&world).await, 0, "a dry run changes nothing");
    let wrong = json!({ "reason": "cleaning up", "filter": {}, "expect": 3 });
    let changed = api.posted("/ops/held/skip", &wrong, 409).await;
    assert_eq!((&changed["code"], &changed["matched"]), (&json!("count_changed"), &json!(2)));
    let gaps = json!({ "reason": "cleaning up", "filter": { "reason": "gap" }, "expect": 1 });
    let done = api.posted("/ops/held/skip", &gaps, 202).await;
    assert_eq!((&done["matched"], &done["decided"]), (&json!(1), &json!(1)));

    // What is decided cannot be again; the rest can.
    let told = api.posted("/ops/held/skip?dry_run=true", &all, 200).await;
    assert_eq!((&told["matched"], &told["possible"], &told["impossible"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(told["impossibleSample"][0]["code"], "already_decided");
    let told = api.posted("/ops/dead-letters/redrive?dry_run=true", &all, 200).await;
    assert_eq!((&told["matched"], &told["possible"]), (&json!(1), &json!(0)));
    assert_eq!(
        (&told["impossibleSample"][0]["code"], &told["impossibleSample"][0]["key"]),
        (&json!("contract_violated"), &json!("bad"))
    );
    let skip =
        json!({ "reason": "cleaning up", "filter": { "status": "open", "reason": ["invalid_json"] }, "expect": 1 });
    let done = api.posted("/ops/dead-letters/skip", &skip, 202).await;
    assert_eq!(done["decided"], 1);
    assert_eq!(decisions(&world).await, 2);

    // Made while nothing projected; in effect when it is back.
    api.stop().await;
    let instance = world.start().await;
    assert_eq!(instance.order_at("gap", 5).await["held"], Value::Null);
    assert_eq!(instance.order_at("bad", 3).await["held"], Value::Null);
    assert_eq!(instance.json("/ops/held").await["items"], json!([]));
    assert_eq!(instance.json("/ops/dead-letters?status=skipped").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_order_is_shown_without_reading_headers_of_any_size() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let gap = life("gap", 5);
    let mut heavy = gap[3].record();
    heavy.headers.push(("baggage".to_owned(), vec![b'x'; 100_000]));
    world.publish([gap[0].record(), heavy, gap[4].record()]).await;
    world.until_consumed(3).await;
    let shown = instance.json("/ops/held/gap").await;
    let types = shown["parked"].as_array().unwrap().iter().map(|parked| parked["type"].is_string());
    assert_eq!(types.collect::<Vec<_>>(), [false, true], "what was read in part is not decoded: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_orders_are_decided_about_in_well_under_a_second() {
    let world = World::new(1).await;
    world.start().await.stop().await;
    let held = "insert into held_keys (view, build, key, reason, missing_from, missing_to, parked_count, parked_bytes, topic, partition) \
                select 'orders', 1, 'o-' || n, 'gap', 2, 2, 1, 100, 't', 0 from generate_series(1, 10000) n";
    let parked = "insert into parked_events (view, build, key, sequence, event_id, topic, partition, \"offset\", payload, headers) \
                  select 'orders', 1, 'o-' || n, 3, 'e-' || n, 't', 0, n, '{}', '' from generate_series(1, 10000) n";
    let inserting = std::time::Instant::now();
    world.sql.batch_execute(&format!("{held}; {parked}; analyze")).await.unwrap();
    let inserted = inserting.elapsed();
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    let started = std::time::Instant::now();
    let body = json!({ "reason": "lost", "filter": { "reason": "gap" }, "expect": 10_000 });
    let done = api.posted("/ops/held/skip", &body, 202).await;
    let taken = started.elapsed();
    assert_eq!((&done["matched"], &done["decided"]), (&json!(10_000), &json!(10_000)));
    println!("10,000 orders were decided about in {taken:?}, inserted in {inserted:?}");
    // Beside what this machine needs for the rows themselves at this moment: one by one would be a hundred times that.
    assert!(taken < std::time::Duration::from_secs(5).max(inserted * 20), "{taken:?}, inserted in {inserted:?}");
    assert_eq!(decisions(&world).await, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_a_decision_is_refused_for_now_and_made_when_it_is_back() {
    let servers = servers::shared();
    let mut postgres = servers::own_postgres();
    let mut world = World::on(&servers.kafka, &postgres.url("postgres"), 1, &[]).await;
    let instance = world.start().await;
    two_held_orders(&world).await;
    postgres.kill_hard().unwrap();
    let away = instance.post_as("/ops/held/gap/skip", &why("lost"), &[("idempotency-key", "one")]).await;
    assert_eq!((away.status().as_u16(), away.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(away.json::<Value>().await.unwrap()["code"], "database_unavailable");
    postgres.restart().unwrap();
    world.reconnect().await;
    instance.until_ready().await;
    let made = instance.post_as("/ops/held/gap/skip", &why("lost"), &[("idempotency-key", "one")]).await;
    assert_eq!(made.status(), 202);
    assert_eq!(instance.order_at("gap", 5).await["held"], Value::Null);
    assert_eq!(decisions(&world).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_grants_are_enough_to_project_decide_verify_and_mend() {
    let world = World::new(1).await;
    let page = include_str!("../../docs/operations.md");
    let role = format!("writer_{}", world.group.replace('.', "_"));
    let mut grants: Vec<String> = Vec::new();
    let statements =
        page.split("```").filter_map(|block| block.strip_prefix("sql\n")).flat_map(|block| block.split(';'));
    for statement in statements {
        let code: String =
            statement.lines().map(|line| line.split("--").next().unwrap_or_default().to_owned() + "\n").collect();
        if code.trim_start().starts_with("grant") && code.contains("to streamview_writer") {
            grants.push(code.replace("streamview_writer", &role));
        }
    }
    assert!(grants.len() > 5, "the page's grants were not found: {grants:?}");
    world.sql.batch_execute(&format!("create role {role} login; {}", grants.join(";"))).await.unwrap();
    let url = world.database.replacen("postgres://postgres", &format!("postgres://{role}"), 1);
    let instance = world.start_with(&[("STREAMVIEW_DATABASE__URL", url.as_str())]).await;
    two_held_orders(&world).await;
    world.until_published().await;

    let skip = instance.post_as("/ops/held/gap/skip", &why("lost"), &[("idempotency-key", "one")]).await;
    assert_eq!(skip.status(), 202, "{}", skip.text().await.unwrap());
    let all = json!({ "reason": "cleaning up", "filter": {}, "expect": 1 });
    instance.posted("/ops/dead-letters/skip", &all, 202).await;
    for (order, sequence) in [("gap", 5), ("bad", 3)] {
        assert_eq!(instance.order_at(order, sequence).await["held"], Value::Null);
    }
    instance.until_metric("streamview_dead_letters_unpublished", &[], 0.0).await;
    instance.until_running().await;

    for from in ["ledger", "log"] {
        let verified = verified(&instance, json!({ "from": from })).await;
        assert_eq!(verified["state"], "done", "{verified:#}");
        let mended =
            instance.posted("/ops/orders/bad/rebuild", &json!({ "reason": "by hand", "from": from }), 200).await;
        assert_eq!(instance.order_at("bad", 3).await["held"], Value::Null, "{mended:#}");
    }
    instance.until_running().await;
    let managed = [("STREAMVIEW_MANAGER__ENABLED", "true"), ("STREAMVIEW_KSQLDB__URL", "http://127.0.0.1:1")];
    doctor(&world, &[&[("STREAMVIEW_DATABASE__URL", url.as_str())][..], &managed].concat())
        .await
        .well(&["database.grants"]);
    // What is old goes from the audit log, too.
    let insert = "insert into audit_log (at, method, route, target, status, trace_id, address, calls)
                  values (now() - interval '400 days', 'GET', '/', '/', 200, '', '', 1)";
    world.sql.batch_execute(insert).await.unwrap();
    let settings = DatabaseSettings { url: SecretUrl::new(url.as_str()), ..Config::defaults().database };
    let client = pool::connect_operator(&settings).await.unwrap();
    assert_eq!(audit::forget(&client, 365, 10).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_beside_a_busy_projector_are_each_made_and_followed() {
    let world = World::new(6).await;
    let instance = world.start().await;
    many_gaps(&world, 100).await;
    let busy: Vec<TestEvent> = (0..3_000).flat_map(|n| life(&format!("busy-{n}"), 5)).collect();
    let load = world.publish(busy.iter().map(TestEvent::record));
    let decided = async {
        for chunk in (0..100).collect::<Vec<_>>().chunks(4) {
            let paths: Vec<String> = chunk.iter().map(|n| format!("/ops/held/o-{n:05}/skip")).collect();
            let body = why("lost");
            let answers = paths.iter().map(|path| instance.posted(path, &body, 202));
            futures_util::future::join_all(answers).await;
        }
    };
    tokio::join!(load, decided);
    world.until_consumed(200 + busy.len() as i64).await;
    for n in 0..100 {
        assert_eq!(instance.order_at(&format!("o-{n:05}"), 3).await["held"], Value::Null);
    }
    assert_eq!(decisions(&world).await, 100);
    assert_eq!(instance.metric("streamview_conservation_difference", &[]).await, 0.0);
}
