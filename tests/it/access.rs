//! Who may do what, from outside: every route with every kind of credential, keys that are made and revoked, and an identity
//! provider that turns its keys, goes away, and answers nonsense.

use std::process::Command;

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::instance::{Instance, is_only_slow};
use crate::support::orders::created;
use crate::support::provider::{Answer, ISSUER, KeyServer, Provider};
use crate::support::servers::execute;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Every route, and the role that it asks for; a route that is not here fails the matrix.
const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/livez", ""),
    ("GET", "/readyz", ""),
    ("GET", "/healthz", ""),
    ("GET", "/metrics", ""),
    ("GET", "/session", ""),
    ("POST", "/session", "whoever comes"),
    ("DELETE", "/session", "whoever comes"),
    ("GET", "/session/login", "whoever comes"),
    ("GET", "/session/callback", "whoever comes"),
    ("GET", "/orders", "reader"),
    ("GET", "/orders/{orderId}", "reader"),
    ("GET", "/orders/{orderId}/events", "reader"),
    ("GET", "/orders/{orderId}/changes", "reader"),
    ("GET", "/orders/changes", "reader"),
    ("GET", "/ops/lags", "operator"),
    ("GET", "/lags", "operator"),
    ("GET", "/ops/consumer", "operator"),
    ("GET", "/ops/views", "operator"),
    ("GET", "/ops/held", "operator"),
    ("GET", "/ops/held/{key}", "operator"),
    ("GET", "/ops/dead-letters", "operator"),
    ("GET", "/ops/dead-letters/topics", "operator"),
    ("GET", "/ops/dead-letters/{id}", "operator"),
    ("GET", "/ops/operations", "operator"),
    ("GET", "/ops/operations/{id}", "operator"),
    ("GET", "/ops/decisions", "operator"),
    ("POST", "/ops/held/skip", "operator"),
    ("POST", "/ops/held/{key}/skip", "operator"),
    ("POST", "/ops/dead-letters/skip", "operator"),
    ("POST", "/ops/dead-letters/redrive", "operator"),
    ("POST", "/ops/dead-letters/{id}/skip", "operator"),
    ("POST", "/ops/dead-letters/{id}/replace", "operator"),
    ("POST", "/ops/dead-letters/{id}/redrive", "operator"),
    ("POST", "/ops/views/rebuild", "operator"),
    ("POST", "/views/rebuild", "operator"),
    ("POST", "/ops/views/{view}/rollback", "operator"),
    ("POST", "/ops/views/{view}/pause", "operator"),
    ("POST", "/ops/views/{view}/resume", "operator"),
    ("GET", "/ops/operations/{id}/differences", "operator"),
    ("POST", "/ops/verify", "operator"),
    ("POST", "/ops/orders/{orderId}/rebuild", "operator"),
    ("POST", "/ops/operations/{id}/cancel", "operator"),
    ("POST", "/ops/operations/{id}/cutover", "operator"),
    ("POST", "/ops/partitions/{partition}/skip-to", "operator"),
    ("GET", "/ops/audit", "admin"),
    ("GET", "/ops/api-keys", "admin"),
    ("POST", "/ops/api-keys", "admin"),
    ("DELETE", "/ops/api-keys/{id}", "admin"),
    ("GET", "/api/streams", "reader"),
    ("POST", "/api/streams", "developer"),
    ("GET", "/api/streams/{id}", "reader"),
    ("PUT", "/api/streams/{id}", "developer or operator"),
    ("DELETE", "/api/streams/{id}", "developer or operator"),
    ("POST", "/api/streams/{id}/deploy", "developer or operator"),
    ("POST", "/api/streams/{id}/stop", "developer or operator"),
    ("POST", "/api/streams/{id}/pause", "developer or operator"),
    ("POST", "/api/streams/{id}/resume", "developer or operator"),
    ("POST", "/api/streams/{id}/plan", "developer or operator"),
    ("POST", "/api/streams/{id}/validate", "developer or operator"),
    ("GET", "/api/streams/{id}/revisions", "reader"),
    ("GET", "/api/streams/{id}/status", "reader"),
    ("GET", "/api/streams/{id}/topology", "reader"),
    ("GET", "/api/streams/{id}/consumers", "reader"),
    ("GET", "/api/streams/{id}/events", "reader"),
    ("GET", "/api/stream", "reader"),
    ("POST", "/api/stream", "developer"),
    ("GET", "/api/stream/{id}", "reader"),
    ("PUT", "/api/stream/{id}", "developer or operator"),
    ("DELETE", "/api/stream/{id}", "developer or operator"),
    ("POST", "/api/stream/{id}/deploy", "developer or operator"),
    ("POST", "/api/stream/{id}/stop", "developer or operator"),
    ("POST", "/api/stream/{id}/pause", "developer or operator"),
    ("POST", "/api/stream/{id}/resume", "developer or operator"),
    ("POST", "/api/stream/{id}/plan", "developer or operator"),
    ("POST", "/api/stream/{id}/validate", "developer or operator"),
    ("GET", "/api/stream/{id}/revisions", "reader"),
    ("GET", "/api/stream/{id}/status", "reader"),
    ("GET", "/api/stream/{id}/topology", "reader"),
    ("GET", "/api/stream/{id}/consumers", "reader"),
    ("GET", "/api/stream/{id}/events", "reader"),
    ("POST", "/api/validate", "developer or operator"),
    ("POST", "/api/queries", "developer"),
    ("GET", "/api/queries", "developer or operator"),
    ("GET", "/api/queries/{id}/rows", "developer or operator"),
    ("DELETE", "/api/queries/{id}", "developer or operator"),
    ("GET", "/api/topics/{topic}/rows", "reader"),
    ("POST", "/api/test/query", "developer"),
    ("GET", "/api/engines", "reader"),
    ("GET", "/api/catalog", "reader"),
    ("GET", "/api/catalog/{name}", "reader"),
    ("PUT", "/api/catalog/{name}", "developer"),
    ("DELETE", "/api/catalog/{name}", "developer"),
    ("GET", "/api/orphans", "reader"),
    ("DELETE", "/api/orphans/{kind}/{id}", "operator"),
];

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const ROLES: [&str; 4] = ["reader", "developer", "operator", "admin"];

fn covers(holder: &str, role: &str) -> bool {
    match role {
        "" | "reader" => true,
        "operator" => matches!(holder, "operator" | "admin"),
        "developer" => matches!(holder, "developer" | "admin"),
        "developer or operator" => matches!(holder, "developer" | "operator" | "admin"),
        _ => holder == role,
    }
}

/// A kind of credential: its name, the header, and the role that it gives; `None`: it gives none.
struct Shown {
    name: String,
    header: Option<(&'static str, String)>,
    role: Option<&'static str>,
}

impl Shown {
    fn bearer(name: &str, token: &str, role: Option<&'static str>) -> Shown {
        Shown { name: name.to_owned(), header: Some(("Authorization", format!("Bearer {token}"))), role }
    }

    fn with(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.header {
            Some((name, value)) => request.header(*name, value),
            None => request,
        }
    }
}

/// What a command prints; it has to succeed.
pub fn run(world: &World, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
    let output = command.args(arguments).envs(world.environment()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A key made by the command line; `expires` as it takes it.
pub async fn make_key(world: &World, role: &str, expires: &[&str]) -> (i64, String) {
    let arguments = [&["apikey", "create", "--json", "--name", role, "--role", role], expires].concat();
    let made = run(world, &arguments);
    let made: Value = serde_json::from_str(&made).unwrap();
    (made["id"].as_i64().unwrap(), made["key"].as_str().unwrap().to_owned())
}

fn settings<'a>(jwks: &'a [(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = vec![
        ("STREAMVIEW_AUTH__API_KEYS", "true"),
        ("STREAMVIEW_AUTH__JWT__ISSUER", ISSUER),
        ("STREAMVIEW_AUTH__JWT__AUDIENCE", "shop,streamview"),
    ];
    settings.extend(jwks);
    settings
}

fn wrong_tokens(provider: &Provider) -> Vec<Shown> {
    let changed = |name: &str, change: fn(&mut Value)| {
        let mut claims = Provider::claims("admin");
        change(&mut claims);
        Shown::bearer(name, &provider.sign(&claims.to_string()), None)
    };
    let claims = Provider::claims("admin").to_string();
    let headed = |name: &str, head: &str| Shown::bearer(name, &provider.sign_as(head, &claims), None);
    vec![
        changed("expired", |claims| claims["exp"] = json!(jiff::Timestamp::now().as_second() - 31)),
        changed("not yet valid", |claims| claims["nbf"] = json!(jiff::Timestamp::now().as_second() + 3600)),
        changed("wrong audience", |claims| claims["aud"] = json!("elsewhere")),
        changed("wrong issuer", |claims| claims["iss"] = json!("https://id.example/realms/other")),
        headed("wrong algorithm", r#"{"alg":"ES384","kid":"one-ec"}"#),
        headed("none", r#"{"alg":"none"}"#),
        headed("HMAC signed with the public key", r#"{"alg":"HS256","kid":"one-ec"}"#),
        headed("unknown kid", r#"{"alg":"ES256","kid":"nobody's"}"#),
        Shown::bearer("somebody else's key", &Provider::new("one").token("admin"), None),
        Shown::bearer("duplicated claim", &provider.sign(&claims.replacen('{', r#"{"roles":["reader"],"#, 1)), None),
        Shown::bearer("no roles", &provider.token("nobody"), Some("nobody")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let world = World::new(1).await;
    let provider = Provider::new("one");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), provider.keys().to_string()).unwrap();
    let mut shown = wrong_tokens(&provider);
    shown.push(Shown { name: "no credentials".to_owned(), header: None, role: None });
    shown.push(Shown {
        name: "malformed".to_owned(),
        header: Some(("Authorization", "Basic YTpi".to_owned())),
        role: None,
    });
    shown.push(Shown::bearer("an unknown key", "svk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", None));
    for role in ROLES {
        let (_, key) = make_key(&world, role, &["--expires", "1d"]).await;
        shown.push(Shown { name: format!("key of {role}"), header: Some(("X-Api-Key", key)), role: Some(role) });
        shown.push(Shown::bearer(&format!("token of {role}"), &provider.token(role), Some(role)));
    }
    let edwards = provider.sign_as(r#"{"alg":"EdDSA","kid":"one-ed"}"#, &Provider::claims("operator").to_string());
    shown.push(Shown::bearer("another algorithm", &edwards, Some("operator")));
    let (revoked, key) = make_key(&world, "admin", &[]).await;
    run(&world, &["apikey", "revoke", &revoked.to_string()]);
    shown.push(Shown::bearer("revoked key", &key, None));
    let (expired, key) = make_key(&world, "admin", &["--expires", "1d"]).await;
    execute(&world.database, &format!("update api_keys set expires_at = now() where id = {expired}")).await;
    shown.push(Shown::bearer("expired key", &key, None));

    let path = file.path().to_str().unwrap();
    let instance = world.start_with(&settings(&[("STREAMVIEW_AUTH__JWT__JWKS_FILE", path)])).await;
    let document = instance.json("/openapi.json").await;
    let mut listed = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            listed.push((method.to_uppercase(), path.clone()));
        }
    }
    for (method, path) in &listed {
        assert!(ROUTES.iter().any(|(m, p, _)| m == method && p == path), "{method} {path} has no line here");
    }
    assert_eq!(listed.len(), ROUTES.len(), "lines of routes that are not there");
    let wrong = join_all(ROUTES.iter().map(|route| ask_with_each(&instance, *route, &shown))).await;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn ask_with_each(instance: &Instance, (method, path, role): (&str, &str, &str), shown: &[Shown]) -> Vec<String> {
    // No such thing: nothing is changed by whoever is let in.
    let mut target = path.to_owned();
    while let Some((before, rest)) = target.split_once('{') {
        target = format!("{before}0{}", rest.split_once('}').unwrap().1);
    }
    let mut wrong = Vec::new();
    for credential in shown {
        let request = instance.http.request(Method::from_bytes(method.as_bytes()).unwrap(), instance.url(&target));
        let request = if method == "POST" { request.json(&json!({})) } else { request };
        let response = credential.with(request).send().await.unwrap();
        let status = response.status().as_u16();
        let challenge = response.headers().get("www-authenticate").is_some();
        let is_right = match credential.role {
            // Whoever asks is answered, even that the database is busy.
            _ if role.is_empty() && status == 503 => is_only_slow(&response.json().await.unwrap_or_default()),
            _ if role.is_empty() => status == 200,
            // It says itself what is wrong with what it is sent.
            _ if role == "whoever comes" => matches!(status, 204 | 400 | 404),
            None => status == 401 && challenge,
            Some(holder) if covers(holder, role) && holder != "nobody" => !matches!(status, 401 | 403) && status < 500,
            Some(_) => status == 403 && challenge,
        };
        if !is_right {
            wrong.push(format!("{method} {target} with {}: {status}", credential.name));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_lets_its_holder_in_and_is_revoked() {
    let world = World::new(1).await;
    let (_, admin) = make_key(&world, "admin", &[]).await;
    let instance = world.start_with(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    world.publish([created("o-1").record()]).await;
    world.until_consumed(1).await;
    let ask = async |method: Method, path: &str, key: &str, body: Option<Value>| {
        let request = instance.http.request(method, instance.url(path)).bearer_auth(key);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap_or_default())
    };
    let asked = json!({ "name": "checkout", "role": "reader", "expires": "90d" });
    let (status, made) = ask(Method::POST, "/ops/api-keys", &admin, Some(asked)).await;
    assert_eq!((status, &made["createdBy"], &made["state"]), (201, &json!("admin"), &json!("valid")), "{made}");
    let key = made["key"].as_str().unwrap();
    assert_eq!(ask(Method::GET, "/orders/o-1", key, None).await.0, 200);
    assert_eq!(ask(Method::GET, "/ops/lags", key, None).await.1["requiredRole"], "operator");

    let (_, list) = ask(Method::GET, "/ops/api-keys", &admin, None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert!(list["items"].as_array().unwrap().iter().all(|key| key.get("key").is_none()), "{list}");
    let kept = world.number("select count(*) from api_keys where prefix like 'svk_%' and length(hash) = 32").await;
    assert_eq!(kept, 2);
    assert!(!instance.log_text().contains(key), "no log has a key");

    let place = format!("/ops/api-keys/{}", made["id"]);
    assert_eq!(ask(Method::DELETE, &place, &admin, None).await.0, 204);
    let (status, refused) = ask(Method::GET, "/orders/o-1", key, None).await;
    let (_, unknown) = ask(Method::GET, "/orders/o-1", "svk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", None).await;
    assert_eq!((status, &refused["code"]), (401, &json!("invalid_credentials")));
    assert_eq!(refused["detail"], unknown["detail"], "revoked or unknown: nobody is told");
    assert_eq!(ask(Method::DELETE, &place, &admin, None).await.0, 204);
    assert_eq!(ask(Method::DELETE, "/ops/api-keys/99", &admin, None).await.1["code"], "api_key_not_found");
    for (body, field) in [
        (json!({ "role": "reader" }), "name"),
        (json!({ "name": "x", "role": "root" }), "role"),
        (json!({ "name": "x", "role": "admin", "expires": "-1d" }), "expires"),
    ] {
        let (status, problem) = ask(Method::POST, "/ops/api-keys", &admin, Some(body)).await;
        assert_eq!((status, &problem["errors"][0]["parameter"]), (400, &json!(field)), "{problem}");
    }
    instance.stop().await;
    let used = "select count(*) from api_keys where last_used_at is not null";
    assert_eq!(world.number(used).await, 2, "when they were used last is noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_readers_are_let_in_where_that_is_meant() {
    let world = World::new(1).await;
    let settings = [("STREAMVIEW_AUTH__API_KEYS", "true"), ("STREAMVIEW_AUTH__ANONYMOUS_ROLE", "reader")];
    let instance = world.start_with(&settings).await;
    assert_eq!(instance.get("/orders").await.status(), 200);
    assert_eq!(instance.get("/ops/lags").await.status(), 401);
    let wrong = instance.http.get(instance.url("/orders")).header("X-Api-Key", "svk_x").send().await.unwrap();
    assert_eq!(wrong.status(), 401, "a wrong key is no anonymous caller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_turns_its_keys_goes_away_and_answers_nonsense() {
    let world = World::new(1).await;
    let (one, two) = (Provider::new("one"), Provider::new("two"));
    let server = KeyServer::start(Answer::Body("<html>maintenance</html>".to_owned())).await;
    let instance = world.start_with(&settings(&[("STREAMVIEW_AUTH__JWT__JWKS_URL", server.url.as_str())])).await;
    let status = async |token: &str| {
        let answer = instance.http.get(instance.url("/orders")).bearer_auth(token).send().await.unwrap();
        answer.status().as_u16()
    };
    // Whether a token is right cannot be told while there is no key.
    assert_eq!(status(&one.token("reader")).await, 503);
    server.now_answers(Answer::Body(one.keys().to_string()));
    let comes_in = async |token: &str| {
        until("the token is taken", PATIENCE, || async { (status(token).await == 200).then_some(()) }).await
    };
    comes_in(&one.token("reader")).await;

    // Away: its last keys count, also for tokens that were never seen.
    for away in [Answer::HangsUp, Answer::Waits] {
        server.now_answers(away);
        assert_eq!(status(&one.sign(&Provider::claims("admin").to_string())).await, 200);
    }
    // New keys are fetched when a token names one; the old ones are over then, also for tokens that were let in before.
    let old = one.token("reader");
    assert_eq!(status(&old).await, 200);
    server.now_answers(Answer::Body(two.keys().to_string()));
    comes_in(&two.token("reader")).await;
    assert_eq!(status(&old).await, 401);
    // Tokens with keys that nobody has do not have it asked again and again.
    let asked = server.asked();
    join_all((0..50).map(|_| async { assert_eq!(status(&one.token("reader")).await, 401) })).await;
    assert!(server.asked() <= asked + 1, "{} times for fifty tokens", server.asked() - asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_has_every_call_that_changes_something_and_every_refusal() {
    let world = World::new(1).await;
    let (_, admin) = make_key(&world, "admin", &[]).await;
    let (_, reader) = make_key(&world, "reader", &[]).await;
    let instance = world.start_with(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    let ask = async |method: Method, path: &str, key: &str, body: Option<Value>| {
        let request = instance.http.request(method, instance.url(path)).bearer_auth(key);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.header("traceparent", TRACE).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap_or_default())
    };
    ask(Method::GET, "/orders", &reader, None).await;
    for _ in 0..30 {
        assert_eq!(ask(Method::GET, "/ops/lags", &reader, None).await.0, 403);
    }
    assert_eq!(instance.get("/orders").await.status(), 401);
    assert_eq!(ask(Method::POST, "/ops/held/o-1/skip", &admin, Some(json!({ "reason": "x" }))).await.0, 404);
    let asked = json!({ "name": "checkout", "role": "reader" });
    assert_eq!(ask(Method::POST, "/ops/api-keys", &admin, Some(asked)).await.0, 201);

    let entries = async |query: &str| {
        let (status, page) = ask(Method::GET, &format!("/ops/audit{query}"), &admin, None).await;
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().clone()
    };
    let all = until("the log has the last call", PATIENCE, || async {
        let all = entries("").await;
        all.iter().any(|entry| entry["route"] == "/ops/api-keys").then_some(all)
    })
    .await;
    let shown = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {} {} {}", text("principal"), text("method"), text("target"), text("outcome"), text("code"))
    };
    assert_eq!(shown(&all[0]), "admin POST /ops/api-keys done -");
    assert_eq!(shown(&all[1]), "admin POST /ops/held/o-1/skip failed held_key_not_found");
    assert_eq!((&all[1]["route"], &all[1]["status"]), (&json!("/ops/held/{key}/skip"), &json!(404)));
    assert_eq!((&all[1]["address"], &all[1]["traceId"]), (&json!("127.0.0.1"), &json!(TRACE[3..35])));
    let refused = entries("?outcome=refused&principal=reader").await;
    assert_eq!(shown(&refused[0]), "reader GET /ops/lags refused role_missing");
    assert_eq!(refused.iter().map(|entry| entry["calls"].as_i64().unwrap()).sum::<i64>(), 30);
    assert!(refused.len() < 30, "refusals that are alike are one entry: {}", refused.len());
    let anonymous = entries("?route=/orders").await;
    assert_eq!(shown(&anonymous[0]), "- GET /orders refused not_logged_in");
    assert!(!all.iter().any(|entry| entry["method"] == "GET" && entry["outcome"] == "done"), "reads are not in it");

    // Page by page, and none before it began.
    let first = entries("?pageSize=1").await;
    assert_eq!((first.len(), &first[0]["id"]), (1, &all[0]["id"]));
    assert!(entries("?to=2020-01-01T00:00:00Z").await.is_empty());
    assert_eq!(ask(Method::GET, "/ops/audit?outcome=maybe", &admin, None).await.0, 400);
    assert_eq!(ask(Method::GET, "/ops/audit", &reader, None).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_taken_out_of_the_audit_log() {
    let world = World::new(1).await;
    let row = "'POST', '/x', '/x', 200, 't', 'a', 1";
    let columns = "at, method, route, target, status, trace_id, address, calls";
    let insert = format!(
        "insert into audit_log ({columns}) values (now() - interval '31 days', {row}), (now() - interval '29 days', {row})"
    );
    execute(&world.database, &insert).await;
    let _instance = world.start_with(&[("STREAMVIEW_AUDIT__RETENTION_DAYS", "30")]).await;
    until("the old entry is gone", PATIENCE, || async {
        (world.number("select count(*) from audit_log").await == 1).then_some(())
    })
    .await;
}
