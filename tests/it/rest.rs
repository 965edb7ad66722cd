//! What REST promises: reads of one's own write, caching, and one error format.

use std::collections::HashSet;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::metrics::series;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life, status_changed};
use crate::support::world::World;
use crate::support::{PATIENCE, until};
pub fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name).map(|value| value.to_str().unwrap());
    value.unwrap_or_default().to_owned()
}

/// The target of a relation in a `Link` header.
pub fn link(response: &Response, relation: &str) -> Option<String> {
    let links = header(response, "link");
    let found = links.split(", ").find(|part| part.ends_with(&format!("; rel=\"{relation}\"")))?;
    Some(found.strip_prefix('<')?.split_once('>')?.0.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_each_get_their_own_order() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let mut events =
        vec![status_changed("o-no-row", 2, "Paid"), created("o-held"), status_changed("o-held", 3, "Paid")];
    for n in 0..30 {
        let order = format!("o-{n}");
        events.push(created(&order).with("items", json!([])));
        events.extend((0..n % 4).map(|more| item_added(&order, 2 + more)));
    }
    world.publish(events.iter().map(TestEvent::record)).await;
    world.until_consumed(events.len() as i64).await;
    let named = ["o-no-row", "o-held", "o-unknown"].map(str::to_owned);
    let paths: Vec<String> = (0..30).map(|n| format!("o-{n}")).chain(named).map(|id| format!("/orders/{id}")).collect();
    let ask = async |path: &str| {
        let response = instance.get(path).await;
        let (status, tag) = (response.status().as_u16(), header(&response, "etag"));
        let mut body: Value = response.json().await.unwrap();
        body.as_object_mut().unwrap().remove("traceId"); // of a 404
        (status, tag, body)
    };
    let mut alone = Vec::new();
    for path in &paths {
        alone.push(ask(path).await);
    }
    let statuses: Vec<u16> = alone.iter().map(|(status, ..)| *status).collect();
    assert_eq!(statuses, [vec![200; 30], vec![404, 200, 404]].concat());
    assert!(
        (0..30).all(
            |n| alone[n].2["orderId"] == format!("o-{n}") && alone[n].2["items"].as_array().unwrap().len() == n % 4
        )
    );
    assert_eq!((&alone[30].2["held"]["missingFrom"], &alone[31].2["held"]["missingFrom"]), (&1.into(), &2.into()));

    let together = || futures_util::future::join_all((0..6).flat_map(|_| &paths).map(|path| ask(path)));
    assert!(together().await.chunks(paths.len()).all(|answers| answers == alone));

    // Who asks over a connection that is gone is told so; the next one gets a new connection.
    let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where datname = current_database() and application_name = 'streamview-lookup'";
    assert!(world.sql.query_one(ended, &[]).await.unwrap().get::<_, i64>(0) > 0);
    let after = together().await;
    let is_right =
        |(place, answer): (usize, &(u16, String, Value))| answer.0 == 503 || *answer == alone[place % paths.len()];
    assert!(after.iter().enumerate().all(is_right));
    assert!(together().await.chunks(paths.len()).all(|answers| answers == alone));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_tag_spares_the_body_until_the_order_or_its_hold_changes() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 5);
    world.publish(events[..2].iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 2).await;
    let ask = async |tags: &str| {
        let request = instance.http.get(instance.url("/orders/o-1")).header("if-none-match", tags);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), header(&response, "etag"), response.text().await.unwrap())
    };
    let response = instance.get("/orders/o-1").await;
    assert_eq!(header(&response, "cache-control"), "private, no-cache");
    let tag = header(&response, "etag");
    assert!(tag.starts_with("\"1-2-") && tag.len() == "\"1-2-\"".len() + 32, "{tag}");

    let gzipped = tag.strip_suffix('"').map(|tag| format!("{tag}-gzip\"")).unwrap();
    let brotli = gzipped.replace("-gzip", ";br");
    let list = format!("\"other\", W/{tag} , \"more\"");
    for matching in [&tag, &format!("W/{tag}"), &list, "*", &gzipped, &format!("W/{brotli}"), &brotli] {
        assert_eq!(ask(matching).await, (304, tag.clone(), String::new()), "{matching}");
    }
    for other in ["\"1-3\"", "\"1-2\"", "1-2", "\"\"", "\"*\""] {
        assert_eq!(ask(other).await.0, 200, "{other}");
    }
    // Held, one more parked, released: each is another answer, with another tag.
    let mut tags = HashSet::from([tag]);
    for (event, consumed) in [(&events[4], 3), (&events[3], 4), (&events[2], 5)] {
        world.publish([event.record()]).await;
        world.until_consumed(consumed).await;
        let previous: Vec<String> = tags.iter().cloned().collect();
        let (status, tag, body) = ask(&previous.join(", ")).await;
        assert_eq!(status, 200, "{body}");
        assert!(tags.insert(tag));
    }
    let missing = instance.http.get(instance.url("/orders/o-2")).header("if-none-match", "*").send().await.unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_reads_its_own_write_or_is_told_how_far_the_order_is() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 3);
    world.publish([events[0].record()]).await;
    world.until_consumed(1).await;
    assert_eq!(instance.json("/orders/o-1?minSequence=1").await["lastEventSequence"], 1);

    // The wait begins before the write, also for an order that is not there yet.
    let waits = ["/orders/o-1?minSequence=2&waitMs=60000", "/orders/o-9?minSequence=1&waitMs=60000"];
    let asked = futures_util::future::join_all(waits.map(|path| instance.get(path)));
    let written = async {
        instance.until_metric("streamview_waiters", &[], 2.0).await;
        world.publish([events[1].record(), created("o-9").record()]).await;
    };
    let (answers, ()) = tokio::join!(asked, written);
    for response in answers {
        assert_eq!(response.status(), 200);
    }
    instance.until_metric("streamview_waiters", &[], 0.0).await;

    world.publish([item_added("o-1", 5).record()]).await;
    world.until_consumed(4).await;
    for (path, current, held) in [
        ("/orders/o-1?minSequence=3", 2, true),
        ("/orders/o-1?minSequence=3&waitMs=0", 2, true),
        ("/orders/o-1?minSequence=3&waitMs=50", 2, true),
        ("/orders/o-9?minSequence=9223372036854775807", 1, false),
        ("/orders/nobody?minSequence=1&waitMs=1", 0, false),
    ] {
        let response = instance.get(path).await;
        assert_eq!((response.status().as_u16(), header(&response, "retry-after").as_str()), (412, "1"), "{path}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(
            (&problem["code"], &problem["currentSequence"]),
            (&"sequence_not_reached".into(), &current.into()),
            "{path}"
        );
        assert_eq!(problem["held"].is_object(), held, "{path}");
    }
    for (query, parameter) in [
        ("minSequence=1&waitMs=60001", "waitMs"),
        ("minSequence=1&waitMs=-1", "waitMs"),
        ("waitMs=5", "waitMs"),
        ("minSequence=0", "minSequence"),
        ("minSequence=9223372036854775808", "minSequence"),
    ] {
        let problem = instance.refusal(&format!("/orders/o-1?{query}"), 400).await;
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_waits_than_allowed_are_answered_at_once() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_HTTP__MAX_WAITERS", "2")]).await;
    let path = "/orders/o-1?minSequence=1&waitMs=60000";
    let waits = futures_util::future::join(instance.get(path), instance.get(path));
    let third = async {
        instance.until_metric("streamview_waiters", &[], 2.0).await;
        let response = instance.get(path).await;
        assert_eq!((response.status().as_u16(), header(&response, "retry-after").as_str()), (503, "1"));
        assert_eq!(response.json::<Value>().await.unwrap()["code"], "too_many_waiters");
        // Who does not wait is not refused.
        assert_eq!(instance.get("/orders/o-1?minSequence=1").await.status(), 412);
        world.publish([created("o-1").record()]).await;
    };
    let ((first, second), ()) = tokio::join!(waits, third);
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(instance.get(path).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_process_serves_and_awaits_what_a_projector_process_writes() {
    let world = World::new(2).await;
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    let projector = world.launch_command(&["serve", "--only", "projector"], &[]);
    api.until_ready().await;
    projector.until_ready().await;
    assert_eq!(api.state().await.0, "not_projecting");

    let asked = api.get("/orders/o-1?minSequence=2&waitMs=60000");
    let written = async {
        api.until_metric("streamview_waiters", &[], 1.0).await;
        world.publish(life("o-1", 2).iter().map(TestEvent::record)).await;
    };
    let (response, ()) = tokio::join!(asked, written);

    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<Value>().await.unwrap()["lastEventSequence"], 2);
    assert_eq!(api.json("/orders").await["total"], 1);
    let lag = until("the lag is observed there too", PATIENCE, || async {
        let lags = api.json("/ops/lags").await;
        (lags["partitions"].as_array().unwrap().len() == 2 && lags["totalLag"] == 0).then_some(lags)
    })
    .await;
    assert_eq!(lag["state"], "not_projecting");
    assert_eq!(api.json("/ops/consumer").await["views"][0]["partitions"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_paged_by_sequence_and_tells_what_became_of_each_event() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let order = "a/b c?é"; // an id that has to be encoded in every link
    let events = life(order, 9);
    world.publish(events.iter().map(TestEvent::record)).await;
    world.until_consumed(9).await;
    let path = "/orders/a%2Fb%20c%3F%C3%A9";
    assert_eq!(instance.json(path).await["orderId"], order);

    let (mut next, mut seen) = (format!("{path}/events?pageSize=4"), Vec::new());
    loop {
        let response = instance.get(&next).await;
        let following = link(&response, "next");
        assert_eq!(link(&response, "first").unwrap(), format!("{path}/events?pageSize=4"));
        let page: Value = response.json().await.unwrap();
        seen.extend(page["items"].as_array().unwrap().clone());
        let Some(following) = following else { break };
        next = following;
    }

    assert_eq!(seen.len(), 9);
    for (shown, event) in seen.iter().zip(&events) {
        assert_eq!((&shown["sequence"], &shown["eventId"]), (&event.sequence.into(), &event.body["eventId"]));
        assert_eq!((&shown["type"], &shown["effect"]), (&event.body["type"], &"applied".into()));
        assert_eq!((&shown["payload"], &shown["offset"]), (&event.body, &(event.sequence - 1).into()));
    }
    assert_eq!(instance.json(&format!("{path}/events?afterSequence=9")).await["items"], json!([]));
    assert_eq!(instance.json(&format!("{path}/events")).await["pageSize"], 50);
    assert_eq!(instance.refusal("/orders/nobody/events", 404).await["code"], "order_not_found");
    for bad in ["afterSequence=-1", "afterSequence=x", "pageSize=0", "page=1", "afterSequence=1&afterSequence=2"] {
        assert_eq!(instance.refusal(&format!("{path}/events?{bad}"), 400).await["code"], "invalid_parameter", "{bad}");
    }
}

/// Asserts the one error format, and that its `type` is a page that is served; gives the body.
async fn assert_problem(instance: &Instance, response: Response, status: u16, what: &str) -> Value {
    assert_eq!(response.status().as_u16(), status, "{what}");
    assert_eq!(header(&response, "content-type"), "application/problem+json", "{what}");
    assert_security_headers(&response, what);
    let trace_id = header(&response, "x-trace-id");
    let path = response.url().path().to_owned();
    let problem: Value = response.json().await.unwrap();
    assert_eq!(
        (&problem["status"], &problem["traceId"], &problem["instance"]),
        (&status.into(), &trace_id.into(), &path.into()),
        "{what}"
    );
    for member in ["title", "detail", "code"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{what}: {problem}");
    }
    let page = instance.get(problem["type"].as_str().unwrap()).await;
    assert_eq!(
        (page.status().as_u16(), header(&page, "content-type").as_str()),
        (200, "text/html; charset=utf-8"),
        "{what}"
    );
    assert!(page.text().await.unwrap().contains(problem["title"].as_str().unwrap()), "{what}");
    problem
}

fn assert_security_headers(response: &Response, what: &str) {
    for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")] {
        assert_eq!(header(response, name), value, "{what}");
    }
    let policy = header(response, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
    assert!(!header(response, "cache-control").is_empty(), "{what}");
    assert_eq!(header(response, "x-trace-id").len(), 32, "{what}");
    assert_eq!(header(response, "server"), "", "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_is_not_usable_is_named_with_its_value_and_what_is_allowed() {
    let world = World::new(1).await;
    let instance = world.start().await;
    for (path, parameter, value, allowed) in [
        ("/orders?statuss=Paid", "statuss", "Paid", "did you mean `status`? Allowed: status, customerId"),
        ("/orders?Status=Paid", "Status", "Paid", "did you mean `status`?"),
        ("/orders?q=1", "q", "1", "Allowed: status, customerId, from, to, sort, page, pageSize, cursor"),
        ("/orders?status=", "status", "", "1 to 256 characters"),
        ("/orders?status=%00", "status", "%00", "percent-encoded UTF-8 without NUL"),
        ("/orders?status=%ff", "status", "%ff", "percent-encoded UTF-8 without NUL"),
        ("/orders?status=%4", "status", "%4", "percent-encoded UTF-8 without NUL"),
        ("/orders?customerId=a&customerId=b", "customerId", "b", "more than once"),
        ("/orders?sort=price", "sort", "price", "updatedAt, -updatedAt, orderId"),
        ("/orders?sort=", "sort", "", "updatedAt, -updatedAt, orderId"),
        ("/orders?sort=orderId&sort=orderId", "sort", "orderId", "more than once"),
        ("/orders?page=two", "page", "two", "whole number from 1"),
        ("/orders?page=1.0", "page", "1.0", "whole number from 1"),
        ("/orders?page=%2B1", "page", "+1", "whole number from 1"),
        ("/orders?page=0", "page", "0", "must be a whole number from 1 to 201"),
        ("/orders?page=0&pageSize=200", "page", "0", "must be a whole number from 1 to 51"),
        (
            "/orders?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
            "from",
            "2026-02-01T00:00:00Z",
            "must not be after `to`, which is 2026-01-01T00:00:00Z",
        ),
        ("/ops/held?olderThan=P1D&newerThan=PT1H", "olderThan", "P1D", "must not be longer ago than `newerThan`"),
        ("/ops/dead-letters?olderThan=P1D&newerThan=60", "olderThan", "P1D", "must not be longer ago than `newerThan`"),
        ("/ops/dead-letters/0", "id", "0", "must be a whole number from 1, of at most 18 digits"),
        ("/ops/dead-letters/99999999999999999999", "id", "99999999999999999999", "of at most 18 digits"),
        ("/orders/o-1?minSequence=99999999999999999999", "minSequence", "99999999999999999999", "of at most 18 digits"),
        ("/orders/o-1/events?afterSequence=-1", "afterSequence", "-1", "from 0, of at most 18 digits"),
        ("/orders?pageSize=201", "pageSize", "201", "from 1 to 200"),
        ("/orders?from=2026-01-01", "from", "2026-01-01", "RFC 3339"),
        ("/orders?from=2026-01-01T00:00:00%2B01:00x", "from", "2026-01-01T00:00:00+01:00x", "RFC 3339"),
        ("/orders?to=2026-01-01T00:00:00+01:00", "to", "2026-01-01T00:00:00 01:00", "write its `+` as `%2B`"),
        ("/orders?to=-009999-01-01T00:00:00Z", "to", "-009999-01-01T00:00:00Z", "RFC 3339"),
        ("/orders?cursor=abc", "cursor", "abc", "a cursor from the `Link` header"),
        ("/orders?cursor=", "cursor", "", "a cursor from the `Link` header"),
        ("/orders?cursor=abc&page=1", "page", "1", "cannot be combined with `cursor`"),
        ("/orders/o-1?minSequence=abc", "minSequence", "abc", "whole number from 1"),
        ("/orders/o-1?minSequence=1&minSequence=1", "minSequence", "1", "more than once"),
        ("/orders/o-1?min=1", "min", "1", "Allowed: minSequence, waitMs"),
        ("/orders/%ff", "orderId", "%ff", "percent-encoded UTF-8 without NUL"),
        ("/orders/a%00b", "orderId", "a%00b", "percent-encoded UTF-8 without NUL"),
        ("/orders/%zz", "orderId", "%zz", "percent-encoded UTF-8 without NUL"),
        ("/orders/%e2%82/events", "orderId", "%e2%82", "percent-encoded UTF-8 without NUL"),
        ("/ops/lags?view=", "view", "", "1 to 256 characters"),
        ("/ops/lags?topic=x", "topic", "x", "Allowed: view"),
        ("/lags?view=orders&view=orders", "view", "orders", "more than once"),
        ("/ops/consumer?views=orders", "views", "orders", "did you mean `view`?"),
    ] {
        let problem = assert_problem(&instance, instance.get(path).await, 400, path).await;
        let error = &problem["errors"][0];
        assert_eq!((&error["parameter"], &error["value"]), (&parameter.into(), &value.into()), "{path}");
        assert!(error["detail"].as_str().unwrap().contains(allowed), "{path}: {error}");
        let bounds_of_types = ["18446744073709551615", "9223372036854775807", "4294967295"];
        assert!(!bounds_of_types.iter().any(|bound| problem.to_string().contains(bound)), "{path}: {problem}");
    }
    let longest = format!("/orders/{}", "%F0%9F%98%80".repeat(256));
    assert_eq!(instance.refusal(&longest, 404).await["code"], "order_not_found");
    let problem = instance.refusal(&format!("{longest}x"), 400).await;
    assert_eq!(problem["errors"][0]["parameter"], "orderId");
    assert_eq!(problem["errors"][0]["value"].as_str().unwrap().len(), 200, "long values are cut");
    let statuses = |count: usize| (0..count).map(|n| format!("status=s{n}")).collect::<Vec<_>>().join("&");
    assert_eq!(instance.get(&format!("/orders?{}", statuses(20))).await.status(), 200);
    assert!(
        instance.refusal(&format!("/orders?{}", statuses(21)), 400).await["errors"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("at most 20")
    );
    let several = instance.refusal("/orders?page=0&sort=x&nonsense=1", 400).await;
    assert_eq!(several["errors"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_and_every_answer_has_the_security_headers() {
    let world = World::new(1).await;
    let instance = world.start().await;
    for (path, status, code) in [
        ("/nothing", 404, "not_found"),
        ("/orders/", 404, "not_found"),
        ("/orders/a/b", 404, "not_found"),
        ("/orders/a/events/", 404, "not_found"),
        ("/%2e%2e/etc/passwd", 404, "not_found"),
        ("//", 404, "not_found"),
        ("/orders/a", 404, "order_not_found"),
        ("/problems/nothing", 404, "not_found"),
        ("/docs/nothing.js", 404, "not_found"),
        ("/docs/../livez.html", 404, "not_found"),
        ("/ops/lags?view=nothing", 404, "view_not_found"),
        ("/ops/consumer?view=nothing", 404, "view_not_found"),
    ] {
        let problem = assert_problem(&instance, instance.get(path).await, status, path).await;
        assert_eq!(problem["code"], code, "{path}");
    }
    let long = format!("/orders?status={}", "x".repeat(8192));
    assert_problem(&instance, instance.get(&long).await, 414, "a long URI").await;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::TRACE] {
        for path in ["/orders", "/orders/o-1", "/livez", "/metrics", "/", "/openapi.json"] {
            let request = instance.http.request(method.clone(), instance.url(path)).body("{\"unread\":");
            let response = request.send().await.unwrap();
            assert_eq!(header(&response, "allow"), "GET, HEAD", "{method} {path}");
            let problem = assert_problem(&instance, response, 405, path).await;
            assert_eq!(problem["code"], "method_not_allowed");
        }
    }
    world.publish([created("o-1").record()]).await;
    instance.order_at("o-1", 1).await;
    let fine = [
        "/",
        "/livez",
        "/readyz",
        "/healthz",
        "/metrics",
        "/openapi.json",
        "/docs/",
        "/problems",
        "/problems/not_found",
        "/orders",
        "/orders/o-1",
        "/orders/o-1/events",
        "/ops/lags",
        "/lags",
        "/ops/consumer",
        "/ops/views",
    ];
    instance.until_ready().await;
    for path in fine {
        let response = instance.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_security_headers(&response, path);
        let (content_type, etag) = (header(&response, "content-type"), header(&response, "etag"));
        let length = response.bytes().await.unwrap().len();
        let head = instance.http.head(instance.url(path)).send().await.unwrap();
        assert_eq!(
            (head.status(), header(&head, "content-type"), header(&head, "etag")),
            (StatusCode::OK, content_type, etag),
            "HEAD {path}"
        );
        if !matches!(path, "/metrics" | "/ops/lags" | "/lags" | "/ops/consumer" | "/ops/views") {
            assert_eq!(header(&head, "content-length"), length.to_string(), "HEAD {path}");
        }
        assert_eq!(head.bytes().await.unwrap().len(), 0, "HEAD {path}");
    }
    let traced = instance.http.get(instance.url("/nothing"));
    let traced =
        traced.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").send().await.unwrap();
    assert_eq!(header(&traced, "x-trace-id"), "0af7651916cd43dd8448eb211c80319c");
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_and_health_tell_each_partition_and_each_dependency() {
    let world = World::new(3).await;
    let instance = world.start().await;
    world.publish((0..9).map(|n| created(&format!("o-{n}")).record_on(n % 3))).await;
    let lags = until("the lag is observed", PATIENCE, || async {
        let lags = instance.json("/ops/lags").await;
        let marks = lags["partitions"].as_array().unwrap().iter().filter(|lag| lag["nextOffset"] == 3);
        (marks.count() == 3 && lags["state"] == "running").then_some(lags)
    })
    .await;

    assert_eq!((&lags["view"], &lags["state"], &lags["totalLag"]), (&"orders".into(), &"running".into(), &0.into()));
    for (partition, lag) in lags["partitions"].as_array().unwrap().iter().enumerate() {
        let expected = json!({
            "topic": world.topic, "partition": partition, "nextOffset": 3, "highWatermark": 3, "lag": 0,
            "lagSeconds": 0.0, "verdict": "ok", "reason": null,
        });
        assert_eq!(lag, &expected);
        let labels = [
            format!("group=\"{}\"", world.group),
            format!("topic=\"{}\"", world.topic),
            format!("partition=\"{partition}\""),
        ];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        assert_eq!(series(&instance, "kafka_consumer_lag", &labels).await, 1);
        assert_eq!(instance.metric("kafka_consumer_lag", &labels).await, 0.0);
    }
    let shape = |lags: Value| lags.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(shape(instance.json("/lags?view=orders").await), shape(lags));
    assert_eq!(instance.json("/livez").await, json!({ "status": "ok", "checks": [] }));
    instance.until_ready().await;
    for path in ["/readyz", "/healthz"] {
        let health = instance.json(path).await;
        let checks: Vec<(&str, &str)> = health["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|check| (check["name"].as_str().unwrap(), check["status"].as_str().unwrap()))
            .collect();
        assert_eq!(checks, [("database", "ok"), ("view:orders", "ok")], "{path}");
    }
    let consumer = instance.json("/ops/consumer").await["views"][0].clone();
    assert_eq!(
        (&consumer["group"], &consumer["topic"], &consumer["build"]),
        (&world.group.as_str().into(), &world.topic.as_str().into(), &1.into())
    );
    assert_eq!(
        (&consumer["conservation"]["consumed"], &consumer["conservation"]["balanced"]),
        (&9.into(), &true.into())
    );
    assert_eq!(consumer["partitions"].as_array().unwrap().len(), 3);
}
