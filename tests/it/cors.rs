//! Web pages of elsewhere, and proxies: who may read answers, who may change something, and whose word counts.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::instance::Instance;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const SHOP: &str = "https://shop.example";
const EVIL: &str = "https://evil.example";

async fn ask(instance: &Instance, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let changes = method == Method::POST;
    let request = instance.http.request(method, instance.url(path));
    let request = if changes { request.json(&json!({})) } else { request };
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

/// Which page may read the answer.
fn allowed(response: &Response) -> Option<&str> {
    response.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap())
}

fn varies(response: &Response) -> bool {
    response.headers().get_all("vary").iter().any(|value| value.to_str().unwrap().split(", ").any(|v| v == "Origin"))
}

async fn code(response: Response) -> String {
    let body: Value = response.json().await.unwrap();
    body["code"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_listed_origins_read_and_change_and_others_do_not() {
    let world = World::new(1).await;
    let origins = format!("{SHOP},http://localhost:3000");
    let settings = [
        ("STREAMVIEW_HTTP__CORS_ORIGINS", origins.as_str()),
        ("STREAMVIEW_AUTH__API_KEYS", "true"),
        ("STREAMVIEW_AUTH__ANONYMOUS_ROLE", "reader"),
    ];
    let instance = world.start_with(&settings).await;
    let own = format!("http://{}", instance.address);
    // Refused or not, found or not: a page that may read reads why.
    for (method, path, status) in [
        (Method::GET, "/orders", 200),
        (Method::HEAD, "/orders", 200),
        (Method::GET, "/orders/nope", 404),
        (Method::GET, "/nowhere", 404),
        (Method::GET, "/orders?pageSize=x", 400),
        (Method::GET, "/orders/changes", 200),
        (Method::GET, "/ops/views", 401),
        (Method::DELETE, "/orders", 405),
        (Method::POST, "/ops/verify", 401),
        (Method::OPTIONS, "/orders", 405),
    ] {
        for (origin, reads) in
            [(SHOP, true), ("http://localhost:3000", true), (EVIL, false), ("null", false), (&own, false), ("", false)]
        {
            let headers: &[(&str, &str)] = if origin.is_empty() { &[] } else { &[("Origin", origin)] };
            let response = ask(&instance, method.clone(), path, headers).await;
            let changes = matches!(method, Method::POST | Method::DELETE);
            let is_foreign = !reads && !origin.is_empty() && origin != own;
            let status = if changes && is_foreign { 403 } else { status };
            assert_eq!(response.status().as_u16(), status, "{method} {path} of {origin}");
            assert_eq!(allowed(&response), reads.then_some(origin), "{method} {path} of {origin}");
            assert!(varies(&response), "{method} {path} of {origin}");
            let headers = response.headers();
            for absent in ["access-control-allow-credentials", "set-cookie", "strict-transport-security"] {
                assert!(!headers.contains_key(absent), "{method} {path} has {absent}");
            }
            assert!(headers.contains_key("permissions-policy") && headers.contains_key("x-content-type-options"));
            if reads {
                let exposed = headers["access-control-expose-headers"].to_str().unwrap();
                assert!(["etag", "link", "location", "x-trace-id"].iter().all(|name| exposed.contains(name)));
            }
            if status == 403 {
                assert_eq!(code(response).await, "origin_not_allowed");
            }
        }
    }
    let refused = until("refusals are in the audit log", PATIENCE, || async {
        let row = world.sql.query_opt("select principal, route, status from audit_log where code = 'origin_not_allowed' and route = '/ops/verify' limit 1", &[]);
        row.await.unwrap()
    })
    .await;
    assert_eq!(refused.get::<_, Option<String>>(0), None);
    assert_eq!(refused.get::<_, i32>(2), 403);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_asks_before_it_calls_is_answered() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_HTTP__CORS_ORIGINS", SHOP)]).await;
    let asks = |origin| {
        [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type,x-api-key"),
        ]
    };
    for path in ["/ops/verify", "/orders", "/orders/changes"] {
        let response = ask(&instance, Method::OPTIONS, path, &asks(SHOP)).await;
        assert_eq!((response.status().as_u16(), allowed(&response)), (204, Some(SHOP)), "{path}");
        assert!(varies(&response));
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        for method in ["GET", "POST", "DELETE"] {
            assert!(header("access-control-allow-methods").split(", ").any(|allowed| allowed == method));
        }
        for name in ["authorization", "x-api-key", "content-type", "idempotency-key", "last-event-id", "if-none-match"]
        {
            assert!(header("access-control-allow-headers").split(", ").any(|allowed| allowed == name), "{name}");
        }
        assert_eq!(header("access-control-max-age"), "600");
        let response = ask(&instance, Method::OPTIONS, path, &asks(EVIL)).await;
        assert_eq!((response.status().as_u16(), allowed(&response)), (403, None), "{path}");
        assert_eq!(code(response).await, "origin_not_allowed");
    }
    instance.stop().await;

    let instance = world.start().await;
    let response = ask(&instance, Method::OPTIONS, "/orders", &asks(SHOP)).await;
    assert_eq!((response.status().as_u16(), allowed(&response), varies(&response)), (405, None, false), "by default");
    let own = format!("http://{}", instance.address);
    for (origin, host, status) in [
        (SHOP, instance.address.as_str(), 403),
        ("null", &instance.address, 403),
        (&own, &instance.address, 400),
        // A name that somebody has led here.
        ("http://evil.example", "evil.example", 403),
    ] {
        let response = ask(&instance, Method::POST, "/ops/verify", &[("Origin", origin), ("Host", host)]).await;
        assert_eq!(response.status().as_u16(), status, "{origin} calls {host}");
    }
    assert_eq!(ask(&instance, Method::POST, "/ops/verify", &[]).await.status().as_u16(), 400, "no page");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_who_a_trusted_proxy_says_and_nobody_else() {
    let world = World::new(1).await;
    let forwarded =
        [("X-Forwarded-For", "6.6.6.6, 203.0.113.7, 10.1.2.3"), ("Forwarded", "for=6.6.6.6"), ("X-Real-Ip", "6.6.6.6")];
    for (trusted, address) in
        [("", "127.0.0.1"), ("192.0.2.0/24", "127.0.0.1"), ("127.0.0.1,10.0.0.0/8", "203.0.113.7")]
    {
        let instance = world.start_with(&[("STREAMVIEW_HTTP__TRUSTED_PROXIES", trusted)]).await;
        let trace = format!("00-{:032x}-b7ad6b7169203331-01", trusted.len() + 1);
        let headers = [&forwarded[..], &[("Traceparent", trace.as_str())]].concat();
        let response = ask(&instance, Method::POST, "/ops/verify", &headers).await;
        assert_eq!(response.status().as_u16(), 400);
        let trace = &trace[3..35];
        let noted: String = until("the call is in the audit log", PATIENCE, || async {
            let row =
                world.sql.query_opt("select address from audit_log where trace_id = $1", &[&trace]).await.unwrap();
            row.map(|row| row.get(0))
        })
        .await;
        assert_eq!(noted, address, "{trusted}");
        instance.stop().await;
    }
}
