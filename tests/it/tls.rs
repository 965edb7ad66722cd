//! The listener's TLS from outside: who gets in by which certificate, certificates that are replaced while everybody calls, and
//! clients that would hold up others.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use h2::client::SendRequest;
use reqwest::{Client, Response, StatusCode, Version, tls::TlsInfo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::authority::{Authority, Files, Issued};
use crate::support::instance::Instance;
use crate::support::orders::created;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Clients that call while certificates are replaced, half of them by a new connection each time.
const CALLERS: usize = 24;

/// Runs a command that needs no server; its exit code, and all that it printed.
fn run(environment: &[(&str, String)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
    let output = command.args(["config", "check"]).envs(environment.iter().cloned()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn https_and_http2_are_served_and_nothing_older_or_plain() {
    let (world, authority) = (World::new(1).await, Authority::new("ours"));
    let files = Files::of(&authority.server());
    let instance = world.start_with_tls(&files.settings(), authority.http().build().unwrap()).await;
    let older = authority.http().http1_only().build().unwrap();
    for (client, version) in [(&instance.http, Version::HTTP_2), (&older, Version::HTTP_11)] {
        let response = client.get(instance.url("/orders?pageSize=1")).send().await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
        assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000");
    }
    let stranger = Authority::new("somebody else's").http().build().unwrap();
    stranger.get(instance.url("/livez")).send().await.unwrap_err();
    curl(&instance, &files.write("ca.pem", &authority.pem()));

    let mut stream = instance.get("/orders/changes").await;
    assert_eq!((stream.status(), stream.version()), (StatusCode::OK, Version::HTTP_2));
    world.publish([created("o-1").record()]).await;
    until_told(&mut stream, "o-1").await;
    let plain = until_closed(&instance, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!plain.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&plain));
    // An alert (0x15), fatal (2): protocol version (70). TLS 1.2 is answered (0x16), until the client says no more.
    let (older, known) = (until_closed(&instance, &hello(2)).await, until_closed(&instance, &hello(3)).await);
    assert_eq!((older[0], &older[5..]), (0x15, &[2, 70][..]), "{older:?}");
    assert_eq!(known[0], 0x16, "{known:?}");
    drop(stream);
    instance.stop().await;
}

/// As people would try it.
fn curl(instance: &Instance, authority: &std::path::Path) {
    for (version, number) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let url = instance.url("/livez");
        let arguments = ["-sS", version, "-w", "%{http_code} %{http_version}", "-o", "/dev/null", "--cacert"];
        let output = Command::new("curl").args(arguments).arg(authority).arg(url).output().expect("curl is there");
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(printed, format!("200 {number}"));
    }
}

/// The first message of a client that speaks TLS 1.1 (`version` 2) or 1.2 (3) at most, with what 1.2 asks for.
fn hello(version: u8) -> Vec<u8> {
    let mut body = vec![3, version];
    body.extend([7; 32]); // random, more or less
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, one suite, no compression
    let groups = [0, 10, 0, 4, 0, 2, 0, 0x17];
    let points = [0, 11, 0, 2, 1, 0];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [&groups[..], &points, &signatures].concat();
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut message = vec![0x16, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    message.extend(body);
    message
}

/// What comes back until the connection is closed.
async fn until_closed(instance: &Instance, sent: &[u8]) -> Vec<u8> {
    let mut connection = TcpStream::connect(&instance.address).await.unwrap();
    connection.write_all(sent).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut answer)).await.expect("it is closed");
    read.ok(); // a reset is an end, too
    answer
}

async fn until_told(stream: &mut Response, what: &str) {
    let mut told = String::new();
    while !told.contains(what) {
        let chunk = tokio::time::timeout(PATIENCE, stream.chunk()).await.expect("the stream says something");
        told.push_str(&String::from_utf8_lossy(&chunk.unwrap().expect("the stream goes on")));
    }
}

/// The certificate that a new connection is shown.
async fn shown(authority: &Authority, instance: &Instance) -> Vec<u8> {
    let client = authority.http().tls_info(true).build().unwrap();
    let response = client.get(instance.url("/livez")).send().await.unwrap();
    response.extensions().get::<TlsInfo>().unwrap().peer_certificate().unwrap().to_vec()
}

async fn until_shown(authority: &Authority, instance: &Instance, issued: &Issued) {
    until("a new connection is shown the new certificate", PATIENCE, || async {
        (shown(authority, instance).await == issued.der).then_some(())
    })
    .await;
}

async fn until_logged(instance: &Instance, words: &str) {
    until(&format!("the log says {words}"), PATIENCE, || async { instance.log_text().contains(words).then_some(()) })
        .await;
}

/// Calls again and again until told to stop; gives the calls that failed.
fn caller(client: Client, url: String, (stop, calls): (Arc<AtomicBool>, Arc<AtomicU64>)) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut failed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match client.get(&url).send().await {
                Ok(response) if response.status() == StatusCode::OK => {}
                Ok(response) => failed.push(response.status().to_string()),
                Err(error) => failed.push(format!("{error:?}")),
            }
            calls.fetch_add(1, Ordering::Relaxed);
        }
        failed
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_while_everybody_calls_and_no_call_fails() {
    let (world, authority) = (World::new(1).await, Authority::new("ours"));
    let first = authority.server();
    let files = Files::of(&first);
    let instance = world.start_with_tls(&files.settings(), authority.http().build().unwrap()).await;
    assert_eq!(shown(&authority, &instance).await, first.der);
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<JoinHandle<Vec<String>>> = (0..CALLERS)
        .map(|number| {
            let http = match number % 4 {
                0 => authority.http(),
                1 => authority.http().http1_only(),
                2 => authority.http().pool_max_idle_per_host(0),
                _ => authority.http().http1_only().pool_max_idle_per_host(0),
            };
            caller(http.build().unwrap(), instance.url("/orders"), (Arc::clone(&stop), Arc::clone(&calls)))
        })
        .collect();
    for _ in 0..3 {
        let next = authority.server();
        files.put(&next);
        until_shown(&authority, &instance, &next).await;
        let so_far = calls.load(Ordering::Relaxed);
        until("they go on calling", PATIENCE, || async {
            (calls.load(Ordering::Relaxed) > so_far + 200).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let failed: Vec<String> = join_all(callers).await.into_iter().flat_map(|failed| failed.unwrap()).collect();
    assert!(failed.is_empty(), "{} of {}: {}", failed.len(), calls.load(Ordering::Relaxed), failed[0]);
    assert!(!instance.log_text().contains("are not used"), "written one after the other is no trouble");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_changes_nothing_and_the_end_of_a_certificate_is_told() {
    let (world, authority) = (World::new(1).await, Authority::new("ours"));
    let first = authority.server();
    let files = Files::of(&first);
    let instance = world.start_with_tls(&files.settings(), authority.http().build().unwrap()).await;
    const TOLD: &str = "the files of http.tls have changed and are not used";
    const END: &str = "streamview_http_certificate_end_seconds";
    let end = instance.metric(END, &[]).await;
    let breaks: [(&str, &dyn Fn() -> &'static str); 3] = [
        ("it holds no certificate in PEM", &|| {
            files.write("cert.pem", "not PEM");
            "http.tls.cert_file"
        }),
        ("is not the key of the first certificate", &|| {
            files.write("key.pem", &authority.server().key);
            "http.tls.key_file"
        }),
        ("cannot be read", &|| {
            std::fs::remove_file(files.path("key.pem")).unwrap();
            "http.tls.key_file"
        }),
    ];
    for (number, (words, break_it)) in breaks.into_iter().enumerate() {
        let setting = break_it();
        until_logged(&instance, words).await;
        let log = instance.log_text();
        let line = log.lines().find(|line| line.contains(words)).unwrap();
        assert!(line.contains(setting) && line.contains(TOLD), "{line}");
        assert_eq!(shown(&authority, &instance).await, first.der);
        files.put(&first);
        until("it is well again", PATIENCE, || async {
            let mended = instance.log_text().matches("are in use as they are now").count();
            (mended == number + 1).then_some(())
        })
        .await;
        assert_eq!(instance.log_text().matches(TOLD).count(), number + 1, "each is told once");
    }
    assert_eq!(instance.metric(END, &[]).await, end);
    let over = authority.server_of_yesteryear();
    files.put(&over);
    until_logged(&instance, "is over since 2021-01-01").await;
    // Who does not look at dates still gets in, and sees when it ended.
    let careless = authority.http().tls_danger_accept_invalid_certs(true).build().unwrap();
    let text = careless.get(instance.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(text.contains(&format!("{END} 1609459200\n")), "2021-01-01");
    authority.http().build().unwrap().get(instance.url("/livez")).send().await.unwrap_err();
    instance.stop().await;
    let (code, printed) = run(&files.settings());
    assert!(code == 0 && printed.contains("warning: ") && printed.contains("is over since 2021-01-01"), "{printed}");
}

async fn ask(client: &Client, instance: &Instance, path: &str) -> (u16, Value) {
    let response = client.get(instance.url(path)).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_lets_in_whom_the_settings_name() {
    let (world, ours, theirs) = (World::new(1).await, Authority::new("ours"), Authority::new("ours"));
    let files = Files::of(&ours.server());
    let roles = "CN=checkout,O=Shop=reader; CN=boss,O=Shop=admin;CN=a\\,O=Shop=admin";
    let settings = files.settings_with_clients(&ours, roles);
    let instance = world.start_with_tls(&settings, ours.http().build().unwrap()).await;
    let code = |(status, body): (u16, Value)| (status, body["code"].as_str().unwrap_or_default().to_owned());
    let nobody = &instance.http;
    assert_eq!(ask(nobody, &instance, "/livez").await.0, 200);
    assert_eq!(code(ask(nobody, &instance, "/orders").await), (401, "not_logged_in".to_owned()));
    let reader = ours.http_as(&ours.client("checkout"));
    assert_eq!(ask(&reader, &instance, "/orders").await.0, 200);
    let (status, body) = ask(&reader, &instance, "/ops/views").await;
    assert_eq!((status, &body["code"], &body["requiredRole"]), (403, &json!("role_missing"), &json!("operator")));
    // Somebody who had a part of somebody else's subject written into a name.
    for name in ["somebody", "checkout,O=Shop", "checkout "] {
        let unknown = ours.http_as(&ours.client(name));
        assert_eq!(code(ask(&unknown, &instance, "/orders").await), (403, "role_missing".to_owned()), "{name}");
    }
    for wrong in [theirs.client("boss"), ours.client_until("boss", Some(SystemTime::now() - Duration::from_secs(60)))] {
        ours.http_as(&wrong).get(instance.url("/livez")).send().await.unwrap_err();
    }
    // What is shown in a header counts, right or wrong.
    let shown = reader.get(instance.url("/orders")).header("X-Api-Key", "svk_1").send().await.unwrap();
    assert_eq!(shown.status().as_u16(), 401);

    let boss = ours.http_as(&ours.client("boss"));
    let asked = boss.post(instance.url("/ops/verify")).json(&json!({})).send().await.unwrap();
    assert_eq!(asked.status().as_u16(), 400);
    let entry = until("the call is in the audit log", PATIENCE, || async {
        let (_, audit) = ask(&boss, &instance, "/ops/audit?principal=CN%3Dboss%2CO%3DShop").await;
        audit["items"].as_array().and_then(|entries| entries.first().cloned())
    })
    .await;
    assert_eq!((&entry["route"], &entry["status"]), (&json!("/ops/verify"), &json!(400)));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_counts_until_it_is_over_or_its_authority_gone() {
    let (world, ours, next) = (World::new(1).await, Authority::new("ours"), Authority::new("next"));
    let files = Files::of(&ours.server());
    let settings = files.settings_with_clients(&ours, "CN=checkout,O=Shop=reader");
    let instance = world.start_with_tls(&settings, ours.http().build().unwrap()).await;
    let reader = ours.http_as(&ours.client("checkout"));
    assert_eq!(ask(&reader, &instance, "/orders").await.0, 200);
    let brief = ours.http_as(&ours.client_until("checkout", Some(SystemTime::now() + Duration::from_secs(15))));
    assert_eq!(ask(&brief, &instance, "/orders").await.0, 200);
    // Its connection is open, and goes on being used.
    let until_refused = async |client: &Client, words: &str| {
        until("it is refused", PATIENCE, || async {
            let (status, body) = ask(client, &instance, "/orders").await;
            (status != 200).then(|| assert_eq!((status, body["detail"].as_str().unwrap()), (401, words)))
        })
        .await;
    };
    until_refused(&brief, "The client certificate is over").await;
    files.write("clients.pem", &format!("{}{}", ours.pem(), next.pem()));
    let other = ours.http_as(&next.client("checkout"));
    until("the next authority counts, too", PATIENCE, || async {
        // reqwest may wait for ever for a connection of HTTP/2 that was refused once it was made (its issue 1323).
        let answer = other.get(instance.url("/orders")).timeout(PATIENCE / 6).send().await.ok()?;
        (answer.status() == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(ask(&reader, &instance, "/orders").await.0, 200, "it is verified anew, and still right");
    files.write("clients.pem", &next.pem());
    until_refused(&reader, "The client certificate is not of an authority that is trusted any more").await;
    assert_eq!(ask(&other, &instance, "/orders").await.0, 200);
    ours.http_as(&ours.client("checkout")).get(instance.url("/orders")).send().await.unwrap_err();
    instance.stop().await;
}

/// A connection with HTTP/2, and its end.
async fn http2(
    (authority, instance): (&Authority, &Instance),
    window: u32,
) -> (SendRequest<bytes::Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let connection = authority.connect(&instance.address).await;
    let mut builder = h2::client::Builder::new();
    let builder = builder.initial_window_size(window).initial_max_send_streams(2_000);
    let (requests, connection) = builder.handshake(connection).await.unwrap();
    (requests.ready().await.unwrap(), tokio::spawn(connection))
}

fn get(instance: &Instance, path: &str) -> http::Request<()> {
    http::Request::builder().uri(instance.url(path)).body(()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_end_their_connection_and_no_other() {
    let (world, authority) = (World::new(1).await, Authority::new("ours"));
    let files = Files::of(&authority.server());
    let mut settings = files.settings();
    settings.push(("STREAMVIEW_HTTP__SEND_TIMEOUT_MS", "1000".to_owned()));
    let instance = world.start_with_tls(&settings, authority.http().build().unwrap()).await;
    let mut stream = instance.get("/orders/changes").await;
    let (mut requests, ended) = http2((&authority, &instance), 100).await;
    let (answer, _) = requests.send_request(get(&instance, "/openapi.json"), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    // It answers pings and takes nothing.
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("the connection ends").unwrap();
    ended.unwrap_err();
    world.publish([created("o-1").record()]).await;
    until_told(&mut stream, "o-1").await;
    drop((answer, stream));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_has_no_more_than_a_thousand_requests_under_way() {
    const MOST: usize = 1_000;
    let (world, authority) = (World::new(1).await, Authority::new("ours"));
    let files = Files::of(&authority.server());
    let mut settings = files.settings();
    settings.push(("STREAMVIEW_HTTP__SHUTDOWN_TIMEOUT_MS", "60000".to_owned()));
    let instance = world.start_with_tls(&settings, authority.http().build().unwrap()).await;
    let (mut requests, ended) = http2((&authority, &instance), 65_535).await;
    let mut waiting = Vec::new();
    for _ in 0..MOST {
        requests = requests.ready().await.unwrap();
        let path = "/orders/o-1?minSequence=1&waitMs=60000";
        waiting.push(requests.send_request(get(&instance, path), true).unwrap().0);
    }
    let one_more = requests.ready().await.unwrap().send_request(get(&instance, "/livez"), true).unwrap().0;
    let answer = one_more.await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let body = answer.into_body().data().await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["code"], "too_many_answers");
    assert_eq!(instance.get("/livez").await.status(), StatusCode::OK, "another connection");
    world.publish([created("o-1").record()]).await;
    for answer in join_all(waiting).await {
        assert_eq!(answer.unwrap().status().as_u16(), 200);
    }
    // A connection that is open and idle holds up no end, though nothing can tell it to go.
    let began = Instant::now();
    instance.stop().await;
    assert!(began.elapsed() < Duration::from_secs(30), "waited for idle connections: {:?}", began.elapsed());
    ended.await.unwrap().ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_finish_a_handshake_holds_up_nobody_and_is_cut_off() {
    /// More than the web framework lets begin at once by default.
    const SILENT: usize = 300;
    let (world, authority) = (World::new(1).await, Authority::new("ours"));
    let files = Files::of(&authority.server());
    let mut settings = files.settings();
    settings.push(("STREAMVIEW_HTTP__WORKERS", "1".to_owned()));
    let instance = world.start_with_tls(&settings, authority.http().build().unwrap()).await;
    let (mut silent, mut fastest) = (Vec::new(), Duration::MAX);
    // The fastest of three: the machine may have much else to do.
    for _ in 0..3 {
        let more = (0..SILENT).map(|_| async { TcpStream::connect(&instance.address).await.unwrap() });
        silent.extend(join_all(more).await);
        let client = authority.http().build().unwrap();
        let began = Instant::now();
        assert_eq!(client.get(instance.url("/livez")).send().await.unwrap().status(), StatusCode::OK);
        fastest = fastest.min(began.elapsed());
    }
    assert!(fastest < Duration::from_secs(4), "it waited for silent ones: {fastest:?}");
    let ends = silent.iter_mut().map(|connection| async {
        tokio::time::timeout(PATIENCE, connection.read(&mut [0; 64])).await.expect("it is cut off").unwrap_or(0)
    });
    assert!(join_all(ends).await.into_iter().all(|bytes| bytes == 0));
    instance.stop().await;
}

#[test]
fn settings_that_do_not_go_together_are_refused_by_name() {
    const CERT: &str = "STREAMVIEW_HTTP__TLS__CERT_FILE";
    const KEY: &str = "STREAMVIEW_HTTP__TLS__KEY_FILE";
    const CLIENTS: &str = "STREAMVIEW_HTTP__TLS__CLIENT_CA_FILE";
    const ROLES: &str = "STREAMVIEW_AUTH__MTLS__ROLE_MAP";
    let authority = Authority::new("ours");
    let (issued, other) = (authority.server(), authority.server());
    let files = Files::of(&issued);
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let (cert, key, other_key) = (path("cert.pem"), path("key.pem"), files.write("other.pem", &other.key));
    let (other_key, junk) = (other_key.to_str().unwrap().to_owned(), files.write("junk.pem", "junk"));
    let junk = junk.to_str().unwrap().to_owned();
    let (clients, role) = (files.write("clients.pem", &authority.pem()), "CN=a=reader".to_owned());
    let clients = clients.to_str().unwrap().to_owned();
    let both = [(CERT, cert.clone()), (KEY, key.clone())];
    for (environment, words) in [
        (
            vec![(CERT, cert.clone())],
            "http.tls.key_file = \"\" (default) is not allowed, expected a PEM file, as http.tls.cert_file is set",
        ),
        (
            vec![(KEY, key.clone())],
            "http.tls.cert_file = \"\" (default) is not allowed, expected a PEM file, as http.tls.key_file is set",
        ),
        (vec![(CLIENTS, clients.clone()), (ROLES, role.clone())], "http.tls.client_ca_file"),
        (vec![(ROLES, role.clone())], "auth.mtls.role_map"),
        ([&both[..], &[(CLIENTS, clients.clone())]].concat(), "auth.mtls.role_map = [] (default) is not allowed"),
        (
            [&both[..], &[(CLIENTS, clients.clone()), (ROLES, "checkout=reader".to_owned())]].concat(),
            "auth.mtls.role_map",
        ),
        (vec![(CERT, "/nope.pem".to_owned()), (KEY, key.clone())], "http.tls.cert_file = /nope.pem cannot be read"),
        (vec![(CERT, junk.clone()), (KEY, key.clone())], "junk.pem is of no use: it holds no certificate"),
        (vec![(CERT, cert.clone()), (KEY, cert.clone())], "cert.pem is of no use: it holds no private key"),
        (vec![(CERT, cert.clone()), (KEY, other_key)], "is not the key of the first certificate in http.tls.cert_file"),
        ([&both[..], &[(CLIENTS, junk), (ROLES, role.clone())]].concat(), "http.tls.client_ca_file"),
        // Nobody has logged in by TLS alone.
        (
            [&both[..], &[("STREAMVIEW_HTTP__BIND", "0.0.0.0:8080".to_owned())]].concat(),
            "http.bind = 0.0.0.0:8080 would let",
        ),
    ] {
        let (code, printed) = run(&environment);
        assert!(code == 2 && printed.starts_with("error: ") && printed.contains(words), "{environment:?}: {printed}");
    }
    let exposed = ("STREAMVIEW_HTTP__BIND", "0.0.0.0:8080".to_owned());
    let fine = [&both[..], &[(CLIENTS, clients), (ROLES, role), exposed]].concat();
    assert_eq!(run(&fine), (0, "settings are usable\n".to_owned()), "client certificates are access control");
}
