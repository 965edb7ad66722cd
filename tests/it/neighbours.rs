//! What one caller can do to the others: nothing that they would notice. Each test plays somebody who means ill, or is merely
//! out of order, and then looks at what is left for everybody else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::access::make_key;
use crate::support::instance::Instance;
use crate::support::orders::life;
use crate::support::provider::{Provider, SignInServer};
use crate::support::world::{World, connect};
use crate::support::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nobody_cannot_fill_the_audit_log() {
    let world = World::new(1).await;
    let (_, admin) = make_key(&world, "admin", &[]).await;
    let instance = world.start_with(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    const CALLS: usize = 200;
    let ask = async |method: String, path: String, is_foreign: bool| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = instance.http.request(method, instance.url(&path));
        let request = if is_foreign { request.header("Origin", "http://evil.example") } else { request };
        request.send().await.unwrap().status().as_u16()
    };
    let no_method = join_all((0..CALLS).map(|_| ask("POST".to_owned(), "/livez".to_owned(), false))).await;
    // Methods that nobody has heard of, and paths that are as long as may be.
    let long = "x".repeat(8_000);
    let foreign = join_all((0..CALLS).map(|n| ask(format!("X{n}"), format!("/{long}{n}"), true))).await;
    let signs_out = join_all((0..CALLS).map(|_| ask("DELETE".to_owned(), "/session".to_owned(), false))).await;
    for (statuses, expected) in [(no_method, 405), (foreign, 403), (signs_out, 204)] {
        assert!(statuses.iter().all(|status| *status == expected), "{expected}: {statuses:?}");
    }
    let last = instance.http.post(instance.url("/ops/held/o-1/skip")).bearer_auth(&admin);
    assert_eq!(last.json(&json!({ "reason": "x" })).send().await.unwrap().status(), 404);
    until("the log has the last call", PATIENCE, || async {
        (world.number("select count(*) from audit_log where principal = 'admin'").await == 1).then_some(())
    })
    .await;
    let row = world
        .row(
            "select count(*), sum(calls)::bigint, max(length(method))::bigint, max(length(target))::bigint, \
                         count(*) filter (where status = 405) from audit_log where principal is null",
        )
        .await;
    let [rows, calls, method, target, no_route]: [i64; 5] = std::array::from_fn(|column| row.get(column));
    assert_eq!(
        (calls, no_route),
        (2 * CALLS as i64, 0),
        "what no route takes changes nothing, and nothing else is lost"
    );
    assert!(rows <= calls / 4, "{rows} rows for {calls} calls");
    assert!(method <= 7 && target == 512, "a method of {method} characters and a path of {target}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_holds_no_connection() {
    let world = World::new(1).await;
    let settings = [("STREAMVIEW_AUTH__API_KEYS", "true"), ("STREAMVIEW_HTTP__SEND_TIMEOUT_MS", "1000")];
    let instance = world.start_with(&settings).await;
    let address = instance.url("").trim_start_matches("http://").to_owned();
    let answer = async |head: &str, body: &str| {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = format!("{head}\r\nHost: x\r\nContent-Type: application/json\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The end of the connection, not only of the answer.
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends").unwrap();
        String::from_utf8(answer).unwrap()
    };
    let (by_length, in_chunks) = ("Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n");
    // One that is waited for, and one that nobody wants to read.
    for (head, status, code) in [
        ("POST /session HTTP/1.1", "408 Request Timeout", "body_too_slow"),
        ("POST /livez HTTP/1.1", "405 Method Not Allowed", "method_not_allowed"),
        ("POST /ops/verify HTTP/1.1", "401 Unauthorized", "not_logged_in"),
    ] {
        for body in [by_length, in_chunks] {
            let answer = answer(head, body).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code), "{head}: {answer}");
        }
    }
    // Whoever sends all of it keeps the connection.
    let mut stream = TcpStream::connect(&address).await.unwrap();
    for _ in 0..2 {
        let whole = "POST /session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        stream.write_all(whole.as_bytes()).await.unwrap();
        let mut piece = [0; 4096];
        let mut answer = String::new();
        while !answer.ends_with('}') {
            let read = timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer").unwrap();
            assert!(read > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        }
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("invalid_body"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_holds_up_no_stop() {
    let world = World::new(1).await;
    let patience = [("STREAMVIEW_HTTP__SEND_TIMEOUT_MS", "600000"), ("STREAMVIEW_HTTP__SHUTDOWN_TIMEOUT_MS", "50000")];
    let instance = world.start_with(&patience).await;
    let mut stream = TcpStream::connect(instance.url("").trim_start_matches("http://")).await.unwrap();
    let head = "POST /session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\
                Expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut goes_on = [0; 25];
    timeout(PATIENCE, stream.read_exact(&mut goes_on)).await.expect("the body is asked for").unwrap();
    assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    let begun = Instant::now();
    instance.signal("TERM");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("the connection ends").unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_too_slow"), "{answer}");
    assert_eq!(instance.until_ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_waited_for_the_audit_log_is_written_whole_however_much_it_is() {
    let world = World::new(1).await;
    let (_, admin) = make_key(&world, "admin", &[]).await;
    let instance = world.start_with(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    let holder = connect(&world.database).await;
    holder.batch_execute("begin; lock table audit_log in access exclusive mode").await.unwrap();
    let (instance, admin) = (&instance, &admin);
    let decides = |caller: usize| async move {
        for number in 0..35 {
            let path = format!("/ops/held/{caller}-{number}/skip");
            let request = instance.http.post(instance.url(&path)).bearer_auth(admin).json(&json!({ "reason": "x" }));
            assert_eq!(request.send().await.unwrap().status(), 404);
        }
    };
    join_all((0..60).map(decides)).await;
    holder.batch_execute("commit").await.unwrap();
    until("the log has all of them", PATIENCE, || async {
        (world.number("select count(*) from audit_log").await >= 60 * 35).then_some(())
    })
    .await;
    let distinct = world.number("select count(distinct target) from audit_log where calls = 1").await;
    assert_eq!((distinct, world.number("select count(*) from audit_log").await), (60 * 35, 60 * 35));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_operators_have_few_connections_however_many_there_are() {
    let world = World::new(1).await;
    world.publish(life("o-1", 2).iter().map(|event| event.record())).await;
    let settings = [
        ("STREAMVIEW_DATABASE__READ_TIMEOUT_MS", "2000"),
        ("STREAMVIEW_DATABASE__DECISION_TIMEOUT_MS", "2000"),
        ("STREAMVIEW_DATABASE__READ_POOL_SIZE", "4"),
    ];
    let instance = world.start_with(&settings).await;
    instance.order_at("o-1", 2).await;
    // Whatever is asked of these waits.
    let holder = connect(&world.database).await;
    let lock =
        "begin; lock table audit_log, api_keys in access exclusive mode; select from projection_progress for update";
    holder.batch_execute(lock).await.unwrap();
    let key = json!({ "name": "x", "role": "reader" });
    let skip = json!({ "from": 0, "to": 1, "reason": "x" });
    let (instance, key, skip) = (&instance, &key, &skip);
    let calls = (0..100).map(|n| async move {
        match n % 4 {
            0 => instance.get("/ops/audit").await,
            1 => instance.get("/ops/api-keys").await,
            2 => instance.post("/ops/api-keys", key).await,
            _ => instance.post("/ops/partitions/0/skip-to", skip).await,
        }
        .status()
        .as_u16()
    });
    let connections = "select count(*) from pg_stat_activity \
                       where datname = current_database() and application_name = 'streamview-operator'";
    let (mut calls, mut most) = (std::pin::pin!(join_all(calls)), 0);
    let statuses = loop {
        tokio::select! {
            statuses = &mut calls => break statuses,
            now = world.number(connections) => most = most.max(now),
        }
    };
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    assert!((1..=7).contains(&most), "{most} connections for a hundred calls");
}

/// The parameters of a URL.
fn parameters(url: &str) -> HashMap<String, String> {
    url::Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

/// Somebody who is sent to the provider from this address, behind a proxy: with which state, and what their browser keeps.
async fn leaves(instance: &Instance, address: &str) -> (HashMap<String, String>, String) {
    let request = instance.http.get(instance.url("/session/login")).header("X-Forwarded-For", address);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let kept = header(&response, "set-cookie").split(';').next().unwrap().to_owned();
    (parameters(header(&response, "location")), kept)
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

/// Where somebody ends who comes back.
async fn comes_back(instance: &Instance, state: &str, kept: &str) -> String {
    let path = format!("/session/callback?code=c&state={state}");
    let response = instance.http.get(instance.url(&path)).header("Cookie", kept).send().await.unwrap();
    header(&response, "location").to_owned()
}

async fn with_provider(world: &World, server: &SignInServer) -> Instance {
    let settings = [
        ("STREAMVIEW_AUTH__JWT__ISSUER", server.issuer.as_str()),
        ("STREAMVIEW_AUTH__JWT__AUDIENCE", "console"),
        ("STREAMVIEW_AUTH__OIDC__CLIENT_ID", "console"),
        ("STREAMVIEW_HTTP__TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let mut instance = world.start_with(&settings).await;
    instance.http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    instance
}

fn worth(server: &SignInServer, provider: &Provider, nonce: &str) {
    let mut claims = Provider::claims("operator");
    (claims["iss"], claims["aud"], claims["nonce"]) = (json!(server.issuer), json!("console"), json!(nonce));
    *server.token.lock().unwrap() = provider.sign(&claims.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_a_thousand_sign_ins_ends_nobody_elses_and_asks_the_provider_once() {
    let world = World::new(1).await;
    let provider = Provider::new("one");
    let server = SignInServer::start(&provider).await;
    let instance = with_provider(&world, &server).await;
    let (sent, kept) = leaves(&instance, "192.0.2.1").await;
    worth(&server, &provider, &sent["nonce"]);
    let looked = server.looked();
    let begins = (0..20).map(|_| async {
        for _ in 0..255 {
            leaves(&instance, "192.0.2.2").await;
        }
    });
    join_all(begins).await;
    assert_eq!(server.looked(), looked, "what the provider says of itself is known");
    assert_eq!(comes_back(&instance, &sent["state"], &kept).await, "/ui/");
    // A hundred of them may be on their way; then the oldest of their own ends.
    for (others, outcome) in [(99, "/ui/"), (100, "/ui/#signIn=refused")] {
        let (first, kept) = leaves(&instance, "192.0.2.3").await;
        worth(&server, &provider, &first["nonce"]);
        for _ in 0..others {
            leaves(&instance, "192.0.2.3").await;
        }
        assert_eq!(comes_back(&instance, &first["state"], &kept).await, outcome);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_is_worth_nothing_is_refused_and_is_no_trouble_of_the_provider() {
    let world = World::new(1).await;
    let provider = Provider::new("one");
    let server = SignInServer::start(&provider).await;
    let instance = with_provider(&world, &server).await;
    for (answer, outcome, warns) in [
        ((400, r#"{"error":"invalid_grant"}"#), "refused", false),
        ((400, r#"{"error":"invalid_client"}"#), "unavailable", true),
        ((502, "<html>"), "unavailable", true),
    ] {
        *server.refuses.lock().unwrap() = Some(answer);
        let (sent, kept) = leaves(&instance, "192.0.2.1").await;
        assert_eq!(comes_back(&instance, &sent["state"], &kept).await, format!("/ui/#signIn={outcome}"), "{answer:?}");
        let has_warned = instance.log_text().contains("nobody can sign in at the identity provider");
        assert_eq!(has_warned, warns, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_has_no_word_for_is_refused_by_name() {
    let world = World::new(1).await;
    let instance = world.start().await;
    for (path, parameter) in [
        ("/ops/audit?from=-005000-01-01T00:00:00Z", "from"),
        ("/ops/audit?to=-005000-01-01T00:00:00Z", "to"),
        ("/ops/audit?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("/ops/audit?from=2026-01-02T00:00:00+01:00", "from"),
    ] {
        let refused: Value = instance.refusal(path, 400).await;
        assert_eq!(
            (&refused["code"], &refused["errors"][0]["parameter"]),
            (&json!("invalid_parameter"), &json!(parameter))
        );
    }
    assert_eq!(instance.get("/ops/audit?from=-004713-11-24T00:00:00Z").await.status(), 200, "Postgres' first moment");
}
