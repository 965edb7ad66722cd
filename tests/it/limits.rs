//! How often callers may call: each limit at its edge, what they are told, and where it is noted.

use reqwest::Response;
use serde_json::{Value, json};

use crate::access::make_key;
use crate::support::instance::Instance;
use crate::support::orders::life;
use crate::support::provider::{ISSUER, Provider};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

async fn as_somebody(instance: &Instance, path: &str, credential: &str) -> Response {
    instance.http.get(instance.url(path)).bearer_auth(credential).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// It is a refusal by this limit, of so many a minute.
async fn assert_limited(response: Response, limit: &str, quota: u32) {
    assert_eq!(response.status(), 429, "{limit}");
    let seconds: u32 = header(&response, "retry-after").parse().unwrap();
    assert!((1..=60 / quota).contains(&seconds), "{limit}: {seconds}");
    assert_eq!(header(&response, "ratelimit"), format!("\"{limit}\";r=0;t={seconds}"));
    assert_eq!(header(&response, "ratelimit-policy"), format!("\"{limit}\";q={quota};w=60"));
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(
        (&problem["code"], &problem["violated-policies"]),
        (&json!("rate_limited"), &json!([limit])),
        "{problem}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_logs_in_an_address_is_one_caller() {
    let world = World::new(1).await;
    let limits = [("STREAMVIEW_HTTP__RATE_LIMITS__READS", "3"), ("STREAMVIEW_HTTP__RATE_LIMITS__STREAMS", "1")];
    let instance = world.start_with(&limits).await;
    world.publish(life("o-1", 3).iter().map(|event| event.record())).await;
    instance.order_at("o-1", 3).await;
    // Lists, histories and orders as they were are of one kind.
    for (left, path) in [(2, "/orders"), (1, "/orders/o-1/events"), (0, "/orders/o-1?asOfSequence=2")] {
        let response = instance.get(path).await;
        assert_eq!((response.status().as_u16(), header(&response, "ratelimit-policy")), (200, "\"reads\";q=3;w=60"));
        assert_eq!(header(&response, "ratelimit"), format!("\"reads\";r={left};t=60"), "{path}");
    }
    for path in ["/orders", "/orders/o-1/events", "/orders/o-1?asOf=2026-01-01T00:00:00Z", "/orders/o-1?%61sOf=x"] {
        assert_limited(instance.get(path).await, "reads", 3).await;
    }
    // What costs little is not counted.
    for _ in 0..20 {
        let response = instance.get("/orders/o-1").await;
        assert_eq!((response.status().as_u16(), header(&response, "ratelimit")), (200, ""));
    }
    let stream = instance.get("/orders/changes").await;
    assert_eq!((stream.status().as_u16(), header(&stream, "ratelimit")), (200, "\"streams\";r=0;t=60"));
    assert_limited(instance.get("/orders/o-1/changes").await, "streams", 1).await;

    for (limit, calls) in [("reads", 4.0), ("streams", 1.0), ("operations", 0.0), ("log_ins", 0.0)] {
        let label = format!("limit=\"{limit}\"");
        assert_eq!(instance.metric("streamview_rate_limited_total", &[&label]).await, calls, "{limit}");
    }
    assert_eq!(instance.metric("http_requests_duration_seconds_count", &["status=\"429\""]).await, 5.0);
    until("the audit log has the refusals", PATIENCE, || async {
        let refused = "select coalesce(sum(calls), 0) from audit_log where status = 429 and code = 'rate_limited' \
                       and principal is null and address = '127.0.0.1'";
        (world.number(refused).await == 5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_logged_in_is_one_caller() {
    let world = World::new(1).await;
    let (_, operator) = make_key(&world, "operator", &[]).await;
    let (_, admin) = make_key(&world, "admin", &[]).await;
    let settings = [
        ("STREAMVIEW_AUTH__API_KEYS", "true"),
        ("STREAMVIEW_HTTP__RATE_LIMITS__OPERATIONS", "2"),
        ("STREAMVIEW_HTTP__RATE_LIMITS__READS", "0"),
    ];
    let instance = world.start_with(&settings).await;
    for left in [1, 0] {
        let response = as_somebody(&instance, "/ops/lags", &operator).await;
        assert_eq!(header(&response, "ratelimit"), format!("\"operations\";r={left};t=60"));
    }
    assert_limited(as_somebody(&instance, "/ops/held", &operator).await, "operations", 2).await;
    let refused = instance.http.post(instance.url("/ops/verify")).bearer_auth(&operator).json(&json!({}));
    assert_limited(refused.send().await.unwrap(), "operations", 2).await;
    // Another one at the same address has called nothing yet; and 0 is no limit.
    assert_eq!(as_somebody(&instance, "/ops/lags", &admin).await.status(), 200);
    for _ in 0..20 {
        let response = as_somebody(&instance, "/orders", &operator).await;
        assert_eq!((response.status().as_u16(), header(&response, "ratelimit")), (200, ""));
    }
    // Who lacks the role spends nothing of what those have who have it, and the open routes are open.
    assert_eq!(as_somebody(&instance, "/ops/audit", &operator).await.status(), 403);
    assert_eq!(instance.get("/metrics").await.status(), 200);
    until("the audit log has the refusals", PATIENCE, || async {
        let refused = "select coalesce(sum(calls), 0) from audit_log where status = 429 and principal = 'operator'";
        (world.number(refused).await == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_tries_credentials_is_stopped_and_who_is_known_is_not() {
    let world = World::new(1).await;
    let (_, reader) = make_key(&world, "reader", &[]).await;
    let provider = Provider::new("one");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), provider.keys().to_string()).unwrap();
    let settings = [
        ("STREAMVIEW_AUTH__API_KEYS", "true"),
        ("STREAMVIEW_AUTH__JWT__ISSUER", ISSUER),
        ("STREAMVIEW_AUTH__JWT__AUDIENCE", "streamview"),
        ("STREAMVIEW_AUTH__JWT__JWKS_FILE", file.path().to_str().unwrap()),
        ("STREAMVIEW_HTTP__RATE_LIMITS__LOG_INS", "4"),
    ];
    let instance = world.start_with(&settings).await;
    let (known, new) = (provider.token("reader"), provider.token("operator"));
    let wrong = |number: usize| format!("svk_{number:043}");
    // A key that is not known has the keys looked at: then this one is known.
    assert_eq!(as_somebody(&instance, "/orders", &wrong(1)).await.status(), 401);
    assert_eq!(as_somebody(&instance, "/orders", &known).await.status(), 200);
    assert_eq!(as_somebody(&instance, "/orders", &Provider::new("one").token("admin")).await.status(), 401);
    assert_eq!(as_somebody(&instance, "/orders", &wrong(2)).await.status(), 401);
    for number in 3..6 {
        assert_limited(as_somebody(&instance, "/orders", &wrong(number)).await, "log_ins", 4).await;
    }
    // It may be right: that is what is not found out any more.
    assert_limited(as_somebody(&instance, "/orders", &new).await, "log_ins", 4).await;
    for _ in 0..10 {
        for credential in [&reader, &known] {
            let response = as_somebody(&instance, "/orders", credential).await;
            assert_eq!(response.status(), 200);
            assert!(header(&response, "ratelimit").starts_with("\"reads\";r=5999"));
        }
    }
    assert_eq!(instance.get("/orders").await.status(), 401, "who shows nothing tries nothing");
    assert_eq!(instance.metric("streamview_rate_limited_total", &["limit=\"log_ins\""]).await, 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_tells_of_the_limits() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let document = instance.json("/openapi.json").await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let asks_for_a_role = operation.get("security").is_some();
            let headers = &operation["responses"]["429"]["headers"];
            let is_told =
                ["Retry-After", "RateLimit", "RateLimit-Policy"].iter().all(|name| headers.get(name).is_some());
            assert_eq!(is_told, asks_for_a_role, "{method} {path}");
        }
    }
    assert!(document["paths"]["/orders"]["get"]["responses"]["200"]["headers"].get("RateLimit").is_some());
    assert_eq!(instance.get("/problems/rate_limited").await.status(), 200);
}
