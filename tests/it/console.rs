//! The console as it is served: its files, who is led to it, and signing in for a browser.

use std::collections::HashMap;

use base64::Engine;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::access::make_key;
use crate::support::instance::Instance;
use crate::support::provider::{Provider, SignInServer};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// A client that goes where it is told only when it is asked to, and keeps no cookies.
fn client() -> Client {
    Client::builder().redirect(Policy::none()).build().unwrap()
}

async fn ask(instance: &Instance, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = client().request(method, instance.url(path));
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The files that a text names.
fn named_in(text: &str) -> Vec<String> {
    let quoted = text.split(['"', '\'', '`']).filter_map(|part| part.strip_prefix("./"));
    quoted.filter(|name| name.ends_with(".js") || name.ends_with(".css")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_is_served_whole_and_kept_by_browsers_as_long_as_it_is_right() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let page = ask(&instance, Method::GET, "/ui/", &[]).await;
    assert_eq!((page.status(), header(&page, "content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    let policy = header(&page, "content-security-policy").to_owned();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("require-trusted-types-for 'script'"));
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("vary", "Accept-Encoding"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(header(&page, name), value);
    }
    let mut left = named_in(&page.text().await.unwrap());
    assert!(left.len() >= 2, "the page names its files: {left:?}");
    let (mut seen, mut kept) = (Vec::new(), 0);
    while let Some(name) = left.pop() {
        if seen.contains(&name) {
            continue;
        }
        let path = format!("/ui/{name}");
        let file = ask(&instance, Method::GET, &path, &[]).await;
        assert_eq!(file.status(), StatusCode::OK, "{name}");
        let kind = if name.ends_with(".js") { "text/javascript; charset=utf-8" } else { "text/css; charset=utf-8" };
        assert_eq!(header(&file, "content-type"), kind);
        let is_kept = header(&file, "cache-control").contains("immutable");
        assert_eq!(is_kept, name.contains('-'), "{name}: {}", header(&file, "cache-control"));
        kept += usize::from(is_kept);
        let tag = header(&file, "etag").to_owned();
        let text = file.text().await.unwrap();
        let again = ask(&instance, Method::GET, &path, &[("if-none-match", &tag)]).await;
        assert_eq!((again.status(), header(&again, "etag")), (StatusCode::NOT_MODIFIED, tag.as_str()));
        assert!(again.bytes().await.unwrap().is_empty());
        let zipped = ask(&instance, Method::GET, &path, &[("accept-encoding", "br, gzip")]).await;
        assert_eq!(header(&zipped, "content-encoding"), "gzip");
        assert_ne!(header(&zipped, "etag"), tag, "other bytes, another tag");
        assert!(zipped.bytes().await.unwrap().len() < text.len());
        let head = ask(&instance, Method::HEAD, &path, &[]).await;
        assert_eq!((head.status(), header(&head, "etag")), (StatusCode::OK, tag.as_str()));
        left.extend(named_in(&text));
        seen.push(name);
    }
    assert!(kept >= 2, "pages are loaded when they are visited: {seen:?}");
    for page in ["/ui/orders", "/ui/orders/order-1", "/ui/no/such/page", "/ui/topics/orders.events/live"] {
        let response = ask(&instance, Method::GET, page, &[]).await;
        assert_eq!(
            (response.status(), header(&response, "content-type")),
            (StatusCode::OK, "text/html; charset=utf-8")
        );
    }
    for nothing in ["/ui/nope-ABCDEFGH.js", "/ui/orders/app.js", "/ui/..%2fCargo.toml"] {
        let response = ask(&instance, Method::GET, nothing, &[]).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{nothing}");
        assert_eq!(header(&response, "content-type"), "application/problem+json");
    }
    let changed = ask(&instance, Method::POST, "/ui/app.js", &[]).await;
    assert_eq!(changed.status(), StatusCode::METHOD_NOT_ALLOWED);
    // What only looks like a page of the console is not one.
    for other in ["/hub/stream", "/api/nothing", "/UI/", "/uis"] {
        let response = ask(&instance, Method::GET, other, &[("accept", BROWSER)]).await;
        assert_ne!(header(&response, "content-type"), "text/html; charset=utf-8", "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_led_to_the_console_and_programs_see_what_they_saw() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let to = async |path: &str, accept: &str| {
        let response = ask(&instance, Method::GET, path, &[("accept", accept)]).await;
        (response.status().as_u16(), header(&response, "location").to_owned(), header(&response, "vary").to_owned())
    };
    assert_eq!(to("/", BROWSER).await, (307, "/ui/".to_owned(), "Accept".to_owned()));
    for accept in ["*/*", "application/json", ""] {
        assert_eq!(to("/", accept).await, (200, String::new(), "Accept".to_owned()), "{accept}");
    }
    let index: Value = ask(&instance, Method::GET, "/", &[]).await.json().await.unwrap();
    assert_eq!((&index["service"], &index["links"]["console"]), (&json!("streamview"), &json!("/ui/")));
    for (path, location) in [
        ("/ui", "/ui/"),
        ("/Query", "/ui/query"),
        ("/Streams", "/ui/streams"),
        ("/Stream/s%2F1", "/ui/streams/s%2F1/live"),
    ] {
        assert_eq!(to(path, BROWSER).await, (307, location.to_owned(), String::new()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_load_the_console_and_only_who_may_sees_anything() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    for path in ["/ui/", "/ui/app.js", "/ui/style.css", "/session"] {
        assert_eq!(ask(&instance, Method::GET, path, &[]).await.status(), StatusCode::OK, "{path}");
    }
    for path in ["/orders", "/orders/changes", "/ops/lags", "/ops/audit", "/api/queries"] {
        assert_eq!(ask(&instance, Method::GET, path, &[]).await.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let nobody: Value = ask(&instance, Method::GET, "/session", &[]).await.json().await.unwrap();
    assert_eq!(
        nobody,
        json!({ "accessControl": true, "signIn": { "apiKey": true, "provider": null }, "principal": null, "may": [] })
    );
}

/// Signs in; gives the answer and the cookie, as a browser sends it back.
async fn sign_in(instance: &Instance, key: &str) -> (Value, String) {
    let request = client().post(instance.url("/session")).header("origin", own(instance));
    let response = request.json(&json!({ "apiKey": key })).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let cookie = header(&response, "set-cookie").to_owned();
    assert!(!cookie.contains(key), "the key is nowhere in it");
    let (word, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
    (response.json().await.unwrap(), word.to_owned())
}

fn own(instance: &Instance) -> String {
    format!("http://{}", instance.address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_by_a_key_and_its_cookie_counts_for_our_own_pages_alone() {
    let world = World::new(1).await;
    let (_, reader) = make_key(&world, "reader", &[]).await;
    let (id, operator) = make_key(&world, "operator", &[]).await;
    let instance = world.start_with(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    let (own, elsewhere) = (own(&instance), "http://127.0.0.1:1");
    let own = own.as_str();

    let (body, cookie) = sign_in(&instance, &reader).await;
    assert_eq!(
        (&body["principal"], &body["may"]),
        (&json!({ "name": "reader", "roles": ["reader"] }), &json!(["read"]))
    );
    let looks = ask(&instance, Method::GET, "/orders", &[("cookie", &cookie)]).await;
    assert_eq!(looks.status(), StatusCode::OK);
    let refused = ask(&instance, Method::GET, "/ops/lags", &[("cookie", &cookie)]).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);

    let (body, cookie) = sign_in(&instance, &operator).await;
    assert_eq!(body["may"], json!(["read", "runStreams", "operate", "decide"]));
    let code = async |method: Method, headers: &[(&str, &str)]| {
        let request =
            client().request(method.clone(), instance.url("/ops/views/orders/pause")).header("cookie", &cookie);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.json(&json!({ "reason": "to try it" })).send().await.unwrap().status().as_u16()
    };
    // What no page of ours has sent changes nothing, whatever cookie the browser adds.
    for (headers, status) in [
        (&[][..], 401),
        (&[("origin", elsewhere)][..], 403),
        (&[("sec-fetch-site", "cross-site")][..], 401),
        (&[("sec-fetch-site", "same-site"), ("origin", own)][..], 401),
        (&[("sec-fetch-site", "none")][..], 401),
        (&[("origin", "null")][..], 403),
        (&[("origin", own)][..], 200),
        (&[("sec-fetch-site", "same-origin")][..], 200),
        (&[("sec-fetch-site", "same-origin"), ("origin", own)][..], 200),
    ] {
        assert_eq!(code(Method::POST, headers).await, status, "{headers:?}");
    }
    // Another page cannot look by it either.
    let peeks = ask(&instance, Method::GET, "/orders", &[("cookie", &cookie), ("sec-fetch-site", "same-site")]).await;
    assert_eq!(peeks.status(), StatusCode::UNAUTHORIZED);
    let forged = format!("{cookie}x");
    assert_eq!(ask(&instance, Method::GET, "/orders", &[("cookie", &forged)]).await.status(), StatusCode::UNAUTHORIZED);
    // What a header shows comes before it.
    let both = [("cookie", cookie.as_str()), ("x-api-key", reader.as_str())];
    assert_eq!(ask(&instance, Method::GET, "/ops/lags", &both).await.status(), StatusCode::FORBIDDEN);

    // A key that is revoked takes its sessions along.
    let (_, other) = sign_in(&instance, &operator).await;
    let revoked = std::process::Command::new(env!("CARGO_BIN_EXE_streamview"))
        .args(["apikey", "revoke", &id.to_string()])
        .envs(world.environment())
        .output()
        .unwrap();
    assert!(revoked.status.success());
    until("the session is over", PATIENCE, || async {
        let looks = ask(&instance, Method::GET, "/ops/lags", &[("cookie", &other)]).await;
        (looks.status() == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    let who: Value = ask(&instance, Method::GET, "/session", &[("cookie", &other)]).await.json().await.unwrap();
    assert_eq!(who["principal"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_out_is_out_and_a_wrong_key_gets_no_session() {
    let world = World::new(1).await;
    let (_, key) = make_key(&world, "reader", &[]).await;
    let instance = world.start_with(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    for (body, status, code) in [
        (json!({ "apiKey": "svk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }), 401, "invalid_credentials"),
        (json!({ "apiKey": "" }), 400, "invalid_body"),
        (json!({ "key": key }), 400, "invalid_body"),
    ] {
        let response = client().post(instance.url("/session")).json(&body).send().await.unwrap();
        assert_eq!((response.status().as_u16(), header(&response, "set-cookie")), (status, ""), "{body}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["code"], code);
    }
    let (_, cookie) = sign_in(&instance, &key).await;
    let out = ask(&instance, Method::DELETE, "/session", &[("cookie", &cookie), ("origin", &own(&instance))]).await;
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    assert!(header(&out, "set-cookie").contains("Max-Age=0"));
    let after = ask(&instance, Method::GET, "/orders", &[("cookie", &cookie)]).await;
    assert_eq!(after.status(), StatusCode::UNAUTHORIZED, "the word is worth nothing any more");
}

/// How a token is made wrong.
type Change = fn(&mut Value);

/// The parameters of a URL.
fn parameters(url: &str) -> HashMap<String, String> {
    url::Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

/// The word of a cookie that an answer sets.
fn cookie_of(response: &Response, name: &str) -> String {
    let all = response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let found = all.filter_map(|cookie| cookie.split(';').next()).find(|cookie| cookie.starts_with(name));
    found.unwrap_or_else(|| panic!("no cookie {name}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_at_the_provider_and_nobody_else_comes_back_in_its_place() {
    let world = World::new(1).await;
    let provider = Provider::new("one");
    let server = SignInServer::start(&provider).await;
    let settings = [
        ("STREAMVIEW_AUTH__JWT__ISSUER", server.issuer.as_str()),
        ("STREAMVIEW_AUTH__JWT__AUDIENCE", "console"),
        ("STREAMVIEW_AUTH__OIDC__CLIENT_ID", "console"),
        ("STREAMVIEW_AUTH__OIDC__CLIENT_SECRET", "s:e c"),
    ];
    let instance = world.start_with(&settings).await;
    let who: Value = ask(&instance, Method::GET, "/session", &[]).await.json().await.unwrap();
    assert_eq!(who["signIn"], json!({ "apiKey": false, "provider": "127.0.0.1" }));
    for elsewhere in ["https://evil.example/", "//evil.example/ui/", "/orders", "/ui/\\evil", "/ui/%01", "/ui/%7F"] {
        let path = format!("/session/login?to={elsewhere}");
        assert_eq!(ask(&instance, Method::GET, &path, &[]).await.status(), StatusCode::BAD_REQUEST, "{elsewhere}");
    }

    let leave = async || {
        let sent = ask(&instance, Method::GET, "/session/login?to=/ui/operations", &[]).await;
        assert_eq!(sent.status(), StatusCode::SEE_OTHER);
        let cookie = header(&sent, "set-cookie");
        assert!(cookie.contains("; HttpOnly; SameSite=Lax; Max-Age=600"), "{cookie}");
        (parameters(header(&sent, "location")), cookie_of(&sent, "streamview_sign_in"))
    };
    let token = |nonce: &str, change: fn(&mut Value)| {
        let mut claims = Provider::claims("operator");
        (claims["iss"], claims["aud"], claims["nonce"]) = (json!(server.issuer), json!("console"), json!(nonce));
        change(&mut claims);
        *server.token.lock().unwrap() = provider.sign(&claims.to_string());
    };
    let back = async |state: &str, cookie: &str| {
        let path = format!("/session/callback?state={state}&code=c%201&session_state=whatever");
        let response = ask(&instance, Method::GET, &path, &[("cookie", cookie)]).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        response
    };

    let (sent, cookie) = leave().await;
    for (name, value) in [
        ("tenant", "shop"),
        ("response_type", "code"),
        ("client_id", "console"),
        ("scope", "openid profile"),
        ("code_challenge_method", "S256"),
        ("redirect_uri", &format!("{}/session/callback", own(&instance))),
    ] {
        assert_eq!(sent[name], value);
    }
    token(&sent["nonce"], |_| {});
    // Somebody else who has learnt of the state and a code, and who has been told them by somebody else.
    for (state, cookie) in [(sent["state"].as_str(), "a=b"), ("other", cookie.as_str())] {
        let response = back(state, cookie).await;
        assert_eq!(header(&response, "location"), "/ui/#signIn=refused");
        assert!(server.asked.lock().unwrap().is_empty(), "the code is not even shown to the provider");
    }
    // The state was used up by that.
    let (sent, cookie) = leave().await;
    token(&sent["nonce"], |_| {});
    let response = back(&sent["state"], &cookie).await;
    assert_eq!(header(&response, "location"), "/ui/operations");
    let session = cookie_of(&response, "streamview_session");
    let looks = ask(&instance, Method::GET, "/ops/lags", &[("cookie", &session)]).await;
    assert_eq!(looks.status(), StatusCode::OK);
    let (head, form) = server.asked.lock().unwrap().last().unwrap().clone();
    let basic = base64::engine::general_purpose::STANDARD.encode("console:s%3Ae+c");
    assert!(head.to_lowercase().contains(&format!("authorization: basic {basic}").to_lowercase()), "{head}");
    let form = parameters(&format!("http://form/?{form}"));
    let challenge = ring::digest::digest(&ring::digest::SHA256, form["code_verifier"].as_bytes());
    assert_eq!(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(challenge), sent["code_challenge"]);
    assert_eq!((form["code"].as_str(), form["grant_type"].as_str()), ("c 1", "authorization_code"));
    // Twice is once too often.
    assert_eq!(header(&back(&sent["state"], &cookie).await, "location"), "/ui/#signIn=refused");
    // Tokens that are not made for this sign-in, or not for us.
    let wrong: [(bool, Change); 4] = [
        (false, |_| {}),
        (true, |claims| claims["aud"] = json!("elsewhere")),
        (true, |claims| claims["iss"] = json!("https://evil.example")),
        (true, |claims| claims["exp"] = json!(1)),
    ];
    for (is_nonce_right, change) in wrong {
        let (sent, cookie) = leave().await;
        token(if is_nonce_right { &sent["nonce"] } else { "another" }, change);
        let response = back(&sent["state"], &cookie).await;
        assert_eq!(header(&response, "location"), "/ui/#signIn=refused");
        assert!(!response.headers().get_all("set-cookie").iter().any(|set| set.to_str().unwrap().contains("session=")));
    }
    let refused = ask(&instance, Method::GET, "/session/callback?error=access_denied&state=x", &[]).await;
    assert_eq!(header(&refused, "location"), "/ui/#signIn=refused");

    // What a browser says is in the log, and is no line of it.
    let forged = format!("/session/callback?error=x%0D%0Aforged%20line%1B%5B2J{}", "y".repeat(5_000));
    let refused = ask(&instance, Method::GET, &forged, &[]).await;
    assert_eq!(header(&refused, "location"), "/ui/#signIn=refused");
    until("it is logged", PATIENCE, || async { instance.log_text().contains("forged line").then_some(()) }).await;
    let log = instance.log_text();
    let line = log.lines().find(|line| line.contains("forged line")).unwrap();
    assert!(line.contains(r"x\r\nforged line\u{1b}[2Jyyy") && line.len() < 1_000, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_logs_in_nobody_signs_in() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let who: Value = ask(&instance, Method::GET, "/session", &[]).await.json().await.unwrap();
    assert_eq!((&who["accessControl"], &who["principal"]), (&json!(false), &Value::Null));
    assert_eq!(who["may"], json!(["read", "define", "runStreams", "operate", "decide", "administer"]));
    let response = client().post(instance.url("/session")).json(&json!({ "apiKey": "svk_x" })).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], "sign_in_not_configured");
}
