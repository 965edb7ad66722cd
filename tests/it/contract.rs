//! The OpenAPI document is valid and complete, and what a live instance answers conforms to it.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};
use streamview::api::routes::table;
use streamview::app::view_apis;

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life};
use crate::support::world::World;

async fn document_of(instance: &Instance) -> Value {
    instance.json("/openapi.json").await
}

/// Every object below `value`, with its place.
fn objects(value: &Value, place: String, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) => {
            found.push((place.clone(), value.clone()));
            for (name, member) in members {
                objects(member, format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                objects(item, format!("{place}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Path, method and operation of each operation.
fn operations(document: &Value) -> Vec<(&String, &String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_a_valid_openapi_document() {
    let world = World::new(1).await;
    let document = document_of(&world.start().await).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    for member in ["title", "version", "description", "license"] {
        assert!(!document["info"][member].is_null(), "info.{member}");
    }
    let mut all = Vec::new();
    objects(&document, String::new(), &mut all);
    for (place, object) in &all {
        if let Some(target) = object["$ref"].as_str() {
            let pointer = target.strip_prefix('#').unwrap_or_else(|| panic!("{place}: {target} leads outside"));
            assert!(document.pointer(pointer).is_some(), "{place}: {target} leads nowhere");
        }
        // Every schema is one by its own meta-schema (OpenAPI 3.1 schemas are JSON Schema 2020-12).
        if place.ends_with("/schema") || place.starts_with("/components/schemas/") && place.matches('/').count() == 3 {
            jsonschema::draft202012::meta::validate(object).unwrap_or_else(|error| panic!("{place}: {error}"));
        }
    }
    let mut operation_ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(operation_ids.insert(operation["operationId"].as_str().unwrap()), "{what}: operationId twice");
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{what}");
        let in_path: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        let mut described = BTreeSet::new();
        let mut names = BTreeSet::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
            assert!(names.insert((name, place)), "{what}: {name} twice");
            let described_by = [&parameter["description"], &parameter["schema"]["description"]];
            assert!(described_by.iter().any(|text| text.is_string()), "{what}: {name}");
            if place == "path" {
                assert_eq!(parameter["required"], true, "{what}: {name}");
                described.insert(name);
            }
        }
        assert_eq!(described, in_path, "{what}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(
                status == "default" || status.parse::<u16>().is_ok_and(|status| (100..600).contains(&status)),
                "{what}: {status}"
            );
            assert!(response["description"].is_string(), "{what}: {status}");
            let no_body = matches!(status.as_str(), "204" | "303" | "304");
            assert_eq!(response["content"].is_null(), no_body, "{what}: {status}");
            let is_error = status == "default" || status.starts_with(['4', '5']);
            if is_error && !operation["tags"].as_array().unwrap().contains(&json!("health")) {
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{what}: {status}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_described_and_everything_described_is_a_route() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let document = document_of(&instance).await;
    // Pages for people and the document itself.
    let undescribed = ["/", "/docs", "/docs/{file:.*}", "/openapi.json", "/problems", "/problems/{code}"];
    let console = ["/ui", "/ui/{file:.*}", "/Query", "/Streams", "/Stream/{id}"];
    let undescribed = [&undescribed[..], &console].concat();
    let routes = table(&view_apis()).into_iter().filter(|route| !undescribed.contains(&route.path));
    let routes: BTreeSet<(String, String)> =
        routes.map(|route| (route.path.to_owned(), route.method.as_str().to_lowercase())).collect();
    let described = operations(&document).into_iter().map(|(path, method, _)| (path.clone(), method.clone())).collect();
    assert_eq!(routes, described);
    // Whatever is described is there.
    for (path, _) in routes {
        let response = instance.get(&path.replace("{orderId}", "nobody")).await;
        if response.headers()["content-type"] == "text/event-stream" {
            continue; // it has no end
        }
        let unmatched = response.text().await.unwrap().contains("/problems/not_found");
        assert!(!unmatched, "{path}");
    }
}

/// A response, held against the document: the status is described (or `default` covers it), so is the content type, and
/// the body satisfies its schema.
fn conforms(document: &Value, operation: &Value, what: &str, status: u16, content_type: &str, body: &str) {
    let responses = operation["responses"].as_object().unwrap();
    let response = responses.get(&status.to_string()).or_else(|| responses.get("default"));
    let response = response.unwrap_or_else(|| panic!("{what}: {status} is not described"));
    if status == 304 {
        assert!(body.is_empty(), "{what}");
        return;
    }
    let content = response["content"].as_object().unwrap_or_else(|| panic!("{what}: {status} has no content"));
    let schema =
        &content.get(content_type).unwrap_or_else(|| panic!("{what}: {content_type} is not described"))["schema"];
    let instance = if content_type.contains("json") { serde_json::from_str(body).unwrap() } else { json!(body) };
    let whole = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "allOf": [schema], "components": document["components"] });
    let validator = jsonschema::options().should_validate_formats(true).build(&whole).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&instance).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:?}: {body}");
    // What an answer has is described: a member that the document does not know is a promise nobody can see.
    let undescribed = undescribed_members(document, schema, &instance, "");
    assert!(undescribed.is_empty() || content_type.contains("problem"), "{what}: {undescribed:?}");
}

fn undescribed_members(document: &Value, schema: &Value, instance: &Value, place: &str) -> Vec<String> {
    match instance {
        Value::Object(members) => {
            let mut known = BTreeMap::new();
            properties(document, schema, &mut known);
            let check = |(name, value): (&String, &Value)| match known.get(name) {
                Some(schema) => undescribed_members(document, schema, value, &format!("{place}/{name}")),
                None if known.is_empty() => Vec::new(), // any object
                None => vec![format!("{place}/{name}")],
            };
            members.iter().flat_map(check).collect()
        }
        Value::Array(items) => {
            items.iter().flat_map(|item| undescribed_members(document, &schema["items"], item, place)).collect()
        }
        _ => Vec::new(),
    }
}

fn properties(document: &Value, schema: &Value, known: &mut BTreeMap<String, Value>) {
    if let Some(target) = schema["$ref"].as_str() {
        properties(document, document.pointer(&target[1..]).unwrap(), known);
    }
    for list in ["allOf", "oneOf", "anyOf"] {
        for part in schema[list].as_array().into_iter().flatten() {
            properties(document, part, known);
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        known.insert(name.clone(), property.clone());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_a_live_instance_conform_to_the_document() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let document = document_of(&instance).await;
    let mut records: Vec<_> = life("complete", 7).iter().map(TestEvent::record).collect();
    records.push(item_added("bare", 1).record()); // no customer, currency, status
    records.extend([created("gap").record(), item_added("gap", 4).record(), item_added("waiting", 2).record()]);
    let mut broken = item_added("poisoned", 2).record();
    broken.payload = Some(b"{".to_vec());
    records.extend([created("poisoned").record(), broken]);
    records.push(TestEvent::new("bare", 2, "OrderGiftWrapped", json!({ "deep": [{ "er": null }] })).record());
    let count = records.len() as i64;
    world.publish(records).await;
    world.until_consumed(count).await;

    for (path, route) in [
        ("/orders", "/orders"),
        ("/orders?status=Created&customerId=x&pageSize=1&page=2", "/orders"),
        ("/orders?sort=orderId&pageSize=2", "/orders"),
        ("/orders?sort=nonsense", "/orders"),
        ("/orders?cursor=nonsense", "/orders"),
        ("/orders?page=999999", "/orders"),
        ("/orders/complete", "/orders/{orderId}"),
        ("/orders/bare", "/orders/{orderId}"),
        ("/orders/gap", "/orders/{orderId}"),
        ("/orders/poisoned", "/orders/{orderId}"),
        ("/orders/waiting", "/orders/{orderId}"),
        ("/orders/nobody", "/orders/{orderId}"),
        ("/orders/%ff", "/orders/{orderId}"),
        ("/orders/gap?minSequence=2", "/orders/{orderId}"),
        ("/orders/bare?asOfSequence=1", "/orders/{orderId}"),
        ("/orders/complete?asOf=2026-01-01T00:00:03Z", "/orders/{orderId}"),
        ("/orders/complete?asOf=2025-01-01T00:00:00Z", "/orders/{orderId}"),
        ("/orders/complete?asOfSequence=1&asOf=now", "/orders/{orderId}"),
        ("/orders/gap?asOfSequence=9", "/orders/{orderId}"),
        ("/orders/complete/events?pageSize=3", "/orders/{orderId}/events"),
        ("/orders/bare/events", "/orders/{orderId}/events"),
        ("/orders/nobody/events", "/orders/{orderId}/events"),
        ("/orders/nobody/events?afterSequence=x", "/orders/{orderId}/events"),
        ("/orders/changes?after=nonsense", "/orders/changes"),
        ("/orders/complete/changes?snapshot=x", "/orders/{orderId}/changes"),
        ("/ops/lags", "/ops/lags"),
        ("/lags?view=orders", "/lags"),
        ("/lags?view=nothing", "/lags"),
        ("/ops/consumer", "/ops/consumer"),
        ("/ops/consumer?x=1", "/ops/consumer"),
        ("/ops/views", "/ops/views"),
        ("/ops/views?view=nothing", "/ops/views"),
        ("/ops/held", "/ops/held"),
        ("/ops/held?reason=gap&pageSize=1&olderThan=0&proven=false", "/ops/held"),
        ("/ops/held?reason=none", "/ops/held"),
        ("/ops/held/gap", "/ops/held/{key}"),
        ("/ops/held/poisoned", "/ops/held/{key}"),
        ("/ops/held/nobody", "/ops/held/{key}"),
        ("/ops/dead-letters", "/ops/dead-letters"),
        ("/ops/dead-letters?status=all&view=nothing", "/ops/dead-letters"),
        ("/ops/dead-letters/1", "/ops/dead-letters/{id}"),
        ("/ops/dead-letters/2", "/ops/dead-letters/{id}"),
        ("/ops/dead-letters/x", "/ops/dead-letters/{id}"),
        ("/ops/decisions?action=skip", "/ops/decisions"),
        ("/ops/decisions?action=x", "/ops/decisions"),
        ("/livez", "/livez"),
        ("/readyz", "/readyz"),
        ("/healthz", "/healthz"),
        ("/metrics", "/metrics"),
    ] {
        let response = instance.get(path).await;
        let status = response.status().as_u16();
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        conforms(
            &document,
            &document["paths"][route]["get"],
            path,
            status,
            &content_type,
            &response.text().await.unwrap(),
        );
    }
    let why = json!({ "reason": "a test" });
    let bulk = json!({ "reason": "a test", "filter": {}, "expect": 99 });
    for (path, route, body) in [
        ("/ops/held/skip?dry_run=true", "/ops/held/skip", &bulk),
        ("/ops/held/skip", "/ops/held/skip", &bulk),
        ("/ops/dead-letters/skip?dry_run=true", "/ops/dead-letters/skip", &bulk),
        ("/ops/dead-letters/redrive?dry_run=true", "/ops/dead-letters/redrive", &bulk),
        ("/ops/dead-letters/1/redrive", "/ops/dead-letters/{id}/redrive", &why),
        ("/ops/dead-letters/1/replace", "/ops/dead-letters/{id}/replace", &why),
        ("/ops/dead-letters/99/skip", "/ops/dead-letters/{id}/skip", &why),
        ("/ops/dead-letters/1/skip", "/ops/dead-letters/{id}/skip", &why),
        ("/ops/dead-letters/1/skip", "/ops/dead-letters/{id}/skip", &why),
        ("/ops/held/gap/skip", "/ops/held/{key}/skip", &why),
        ("/ops/held/gap/skip", "/ops/held/{key}/skip", &json!({})),
        ("/ops/partitions/0/skip-to", "/ops/partitions/{partition}/skip-to", &why),
    ] {
        let response = instance.post(path, body).await;
        let status = response.status().as_u16();
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        let operation = &document["paths"][route]["post"];
        conforms(&document, operation, path, status, &content_type, &response.text().await.unwrap());
    }
    instance.order_at("gap", 4).await;
    let history = instance.json("/orders/gap/events").await;
    assert_eq!(history["items"][1]["effect"], "skipped", "{history}");
    let operation = &document["paths"]["/orders/{orderId}/events"]["get"];
    conforms(&document, operation, "a skipped event", 200, "application/json", &history.to_string());
    let decided = instance.json("/ops/decisions").await;
    conforms(
        &document,
        &document["paths"]["/ops/decisions"]["get"],
        "decisions",
        200,
        "application/json",
        &decided.to_string(),
    );
    for (path, route) in [("/orders", "/orders"), ("/metrics", "/metrics"), ("/orders/complete", "/orders/{orderId}")] {
        let response = instance.http.request(Method::DELETE, instance.url(path)).send().await.unwrap();
        let (status, body) = (response.status().as_u16(), response.text().await.unwrap());
        conforms(&document, &document["paths"][route]["get"], path, status, "application/problem+json", &body);
    }
    let order = instance.http.get(instance.url("/orders/complete")).header("if-none-match", "*").send().await.unwrap();
    conforms(
        &document,
        &document["paths"]["/orders/{orderId}"]["get"],
        "304",
        order.status().as_u16(),
        "",
        &order.text().await.unwrap(),
    );
}

#[test]
#[should_panic(expected = "/extra")]
fn a_member_that_is_not_described_is_noticed() {
    let document = json!({ "components": { "schemas": { "A": { "type": "object", "properties": { "known": { "type": "string" } } } } } });
    let operation = json!({ "responses": { "200": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/A" } } } } } });
    conforms(&document, &operation, "GET", 200, "application/json", r#"{ "known": "x", "extra": 1 }"#);
}

#[test]
#[should_panic(expected = "is not of type")]
fn a_member_of_another_type_is_noticed() {
    let document = json!({ "components": { "schemas": { "A": { "type": "object", "properties": { "known": { "type": "string" } } } } } });
    let operation = json!({ "responses": { "200": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/A" } } } } } });
    conforms(&document, &operation, "GET", 200, "application/json", r#"{ "known": 5 }"#);
}
