//! Who may connect to the hub, by what they show and where; and that what they show is written down nowhere.

use std::io::Write as _;
use std::process::Command;

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use streamview::config::Config;

use crate::access::{make_key, run};
use crate::hub::{Server, Stock, TRANSPORTS, met, node, row, settings_of_hub};
use crate::support::PATIENCE;
use crate::support::listener::client;
use crate::support::provider::{ISSUER, Provider};
use crate::support::web_socket::WebSocket;
use crate::support::world::World;

const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}";
const LIMITS: &str = "{\"type\":1,\"target\":\"GetQueryLimits\",\"arguments\":[],\"invocationId\":\"0\"}";
const QUERY: &str = "{\"type\":4,\"target\":\"ExecuteAdHoc\",\"arguments\":[\"quiet\"],\"invocationId\":\"1\"}";
const PAGE: &str = "https://shop.example";
const EVIL: &str = "https://evil.example";

/// A server that takes tokens of `provider`. The file of its keys is kept as long as the server is asked.
async fn closed(provider: &Provider) -> (Server, tempfile::NamedTempFile) {
    closed_with(provider, |_| {}).await
}

async fn closed_with(provider: &Provider, set: impl FnOnce(&mut Config)) -> (Server, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(provider.keys().to_string().as_bytes()).unwrap();
    let mut config = Config::defaults();
    config.auth.jwt.issuer = ISSUER.to_owned();
    config.auth.jwt.audience = vec!["streamview".to_owned()];
    config.auth.jwt.jwks_file = file.path().to_str().unwrap().to_owned();
    config.http.cors_origins = vec![PAGE.to_owned()];
    set(&mut config);
    (Server::with(config, "127.0.0.1:0".parse().unwrap(), settings_of_hub()).await, file)
}

async fn ask(method: Method, url: &str, headers: &[(&str, &str)]) -> Response {
    let request = client().request(method, url);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

/// A connection negotiated by whoever has this token.
async fn negotiated(server: &Server, token: &str) -> String {
    let url = format!("{}/negotiate?negotiateVersion=1", server.hub());
    let answer = ask(Method::POST, &url, &[("authorization", &format!("Bearer {token}"))]).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_ne!(answer["connectionId"], answer["connectionToken"]);
    answer["connectionToken"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_client_logs_in_on_every_transport_and_its_role_counts() {
    let Some(folder) = node() else { return };
    let provider = Provider::new("a");
    let (server, _keys) = closed(&provider).await;
    let refused = "Queries ask for the role `developer`.";
    for transport in TRANSPORTS {
        for (role, expected) in [
            ("developer", json!({ "items": [row(0), row(1), row(2)] })),
            ("reader", json!({ "items": [], "error": refused })),
        ] {
            let token = provider.token(role);
            let mut client = Stock::node(&folder, "hub.mjs", &[&server.hub(), transport, "login", &token]);
            let told = client.tells_all().await;
            assert_eq!(told["stream"], expected, "{transport} {role}");
            assert_eq!(told["invoke"]["value"]["mine"], format!("a-{role}"), "{transport}");
        }
        let mut client = Stock::node(&folder, "hub.mjs", &[&server.hub(), transport, "login", "nonsense"]);
        let told = client.tells_all().await;
        assert!(told["start"].as_str().unwrap().contains("Status code '401'"), "{transport}: {told:?}");
    }
    let token = provider.token("developer");
    let mut client = Stock::node(&folder, "hub.mjs", &[&server.hub(), "WebSockets", "skip", &token]);
    assert_eq!(client.tells().await["stream"]["items"].as_array().unwrap().len(), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_opened_by_who_negotiated_it_and_by_nobody_else() {
    let provider = Provider::new("a");
    let (server, _keys) = closed(&provider).await;
    let (ada, eve) = (provider.token("developer"), provider.token("reader"));
    let (of_ada, of_eve) = (format!("Bearer {ada}"), format!("Bearer {eve}"));
    let hub = server.hub();
    let refused = async |url: String, headers: &[(&str, &str)]| {
        let answer = ask(Method::GET, &url, headers).await;
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap()["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(ask(Method::POST, &format!("{hub}/negotiate"), &[]).await.status(), 401);
    assert_eq!(refused(hub.clone(), &[]).await, (401, "not_logged_in".into()));
    assert_eq!(refused(format!("{hub}?id=nope"), &[]).await, (401, "not_logged_in".into()));
    let by_ada: &[(&str, &str)] = &[("authorization", &of_ada)];
    assert_eq!(refused(hub.clone(), by_ada).await, (400, "invalid_parameter".into()));
    assert_eq!(refused(format!("{hub}?id=nope"), by_ada).await, (404, "hub_connection_not_found".into()));
    // Whoever does not ask for a WebSocket shows no token in the query.
    assert_eq!(refused(format!("{hub}?access_token={ada}"), &[]).await, (401, "not_logged_in".into()));

    // A poll: the connection's token is enough, and other people's credentials are not.
    let id = negotiated(&server, &ada).await;
    let url = format!("{hub}?id={id}");
    assert_eq!(refused(url.clone(), &[("authorization", &of_eve)]).await, (403, "hub_connection_foreign".into()));
    let first = ask(Method::GET, &url, &[]).await;
    assert_eq!((first.status().as_u16(), first.text().await.unwrap().as_str()), (200, ""));
    let post = ask(Method::POST, &url, &[("authorization", &of_eve)]).await;
    assert_eq!(post.status(), 403);
    let says = |text: String| Client::new().post(&url).body(text).send();
    assert_eq!(says(format!("{HANDSHAKE}\u{1e}{LIMITS}\u{1e}")).await.unwrap().status(), 200);
    let told = ask(Method::GET, &url, by_ada).await.text().await.unwrap();
    assert!(told.starts_with("{}\u{1e}"), "{told}");
    assert_eq!(refused(url.clone(), &[("accept", "text/event-stream")]).await, (409, "hub_connection_in_use".into()));
    assert_eq!(ask(Method::DELETE, &url, &[("authorization", &of_eve)]).await.status(), 403);
    assert_eq!(ask(Method::DELETE, &url, by_ada).await.status(), 202);
    met("it is forgotten", || server.metrics.hub_connections.get() == 0).await;
    assert_eq!(says("{\"type\":7}\u{1e}".to_owned()).await.unwrap().status(), 401, "nobody is known by it any more");
    assert_eq!(ask(Method::POST, &url, by_ada).await.status(), 404);

    // WebSockets: by header, in the query, by the connection's token; and not by two things at once.
    let open = |target: String, headers: Vec<(&'static str, String)>| async move {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        WebSocket::open(server.address, &target, &headers).await.map_err(|answer| answer.status)
    };
    let status = |opened: Result<WebSocket, u16>| opened.err().unwrap_or(101);
    assert_eq!(status(open("/hub/stream".into(), vec![]).await), 401);
    assert_eq!(status(open("/hub/stream?access_token=nonsense".into(), vec![]).await), 401);
    assert_eq!(status(open(format!("/hub/ksql?access_token={ada}"), vec![]).await), 101);
    assert_eq!(status(open("/hub/stream".into(), vec![("authorization", of_ada.clone())]).await), 101);
    let both = open(format!("/hub/stream?access_token={ada}"), vec![("authorization", of_ada.clone())]).await;
    assert_eq!(status(both), 401);
    let id = negotiated(&server, &ada).await;
    assert_eq!(status(open(format!("/hub/stream?id={id}&access_token={eve}"), vec![]).await), 403);
    let mut own = open(format!("/hub/stream?id={id}"), vec![]).await.ok().unwrap();
    own.say(HANDSHAKE).await;
    assert_eq!(own.frame().await.as_deref(), Some("{}\u{1e}"));
    assert_eq!(status(open(format!("/hub/stream?id={id}&access_token={ada}"), vec![]).await), 409);
}

/// The next frame that is more than a sign of life.
async fn no_ping(socket: &mut WebSocket) -> String {
    loop {
        let frame = socket.frame().await.unwrap();
        if !frame.starts_with("{\"type\":6}") {
            return frame;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_token_that_it_was_opened_with() {
    let provider = Provider::new("a");
    let (server, _keys) = closed_with(&provider, |config| config.auth.jwt.leeway_seconds = 0).await;
    let hub = server.hub();
    let mut claims = Provider::claims("developer");
    claims["exp"] = json!(jiff::Timestamp::now().as_second() + 15);
    let (short, long) = (provider.sign(&claims.to_string()), provider.token("developer"));
    let id = negotiated(&server, &short).await;
    let url = format!("{hub}?id={id}");
    assert_eq!(ask(Method::GET, &url, &[]).await.status(), 200);
    assert_eq!(client().post(&url).body(format!("{HANDSHAKE}\u{1e}")).send().await.unwrap().status(), 200);
    assert_eq!(ask(Method::GET, &url, &[]).await.text().await.unwrap(), "{}\u{1e}");
    let open = async |token: &str| {
        let opened = WebSocket::open(server.address, &format!("/hub/stream?access_token={token}"), &[]).await;
        let mut socket = opened.map_err(|answer| answer.status).unwrap();
        socket.say(HANDSHAKE).await;
        assert_eq!(socket.frame().await.as_deref(), Some("{}\u{1e}"));
        socket
    };
    let (mut over, mut stays) = (open(&short).await, open(&long).await);
    // Neither asks for anything any more, and both are told.
    let polled = ask(Method::GET, &url, &[]).await.text().await.unwrap();
    let told = no_ping(&mut over).await;
    for told in [polled, told] {
        let close: Value = serde_json::from_str(told.trim_end_matches('\u{1e}')).unwrap();
        assert_eq!((&close["type"], &close["allowReconnect"]), (&json!(7), &json!(true)), "{told}");
        assert!(
            close["error"].as_str().unwrap().contains("credentials of `a-developer` do not count any more"),
            "{told}"
        );
    }
    stays.say(LIMITS).await;
    assert!(no_ping(&mut stays).await.contains("\"type\":3"));
}

/// Whatever the client takes its frames by, and whether or not it asks for anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_ends_what_it_has_opened_on_every_transport() {
    let world = World::new(1).await;
    let (id, key) = make_key(&world, "developer", &[]).await;
    let mut config = Config::defaults();
    config.auth.api_keys = true;
    let server = Server::over(&world.database, config, "127.0.0.1:0".parse().unwrap(), settings_of_hub()).await;
    let bearer = format!("Bearer {key}");
    let by_key: &[(&str, &str)] = &[("authorization", &bearer)];
    let opening = [HANDSHAKE, QUERY].map(|message| format!("{message}\u{1e}")).concat();
    let says = async |id: &str| {
        let said = client().post(format!("{}?id={id}", server.hub())).body(opening.clone()).send().await.unwrap();
        assert_eq!(said.status(), 200);
    };
    let mut socket = WebSocket::open(server.address, "/hub/stream", by_key).await.ok().unwrap();
    socket.say(HANDSHAKE).await;
    socket.say(QUERY).await;
    let events = negotiated(&server, &key).await;
    let accept = ("accept", "text/event-stream");
    let mut events_told = ask(Method::GET, &format!("{}?id={events}", server.hub()), &[accept]).await;
    says(&events).await;
    let polling = negotiated(&server, &key).await;
    let poll = format!("{}?id={polling}", server.hub());
    assert_eq!(ask(Method::GET, &poll, &[]).await.status(), 200);
    says(&polling).await;
    // A client that does not come back to poll is gone.
    let polls = tokio::spawn(async move {
        let (client, mut told) = (Client::new(), String::new());
        while !told.contains("\"type\":7") {
            let polled = client.get(&poll).send().await.unwrap();
            assert_eq!(polled.status(), 200, "it is told why: {told}");
            told += &polled.text().await.unwrap();
        }
        told
    });
    server.service.until_open(3).await;

    run(&world, &["apikey", "revoke", &id.to_string()]);
    let mut told = [String::new(), String::new(), polls.await.unwrap()];
    while !told[0].contains("\"type\":7") {
        told[0] += &socket.frame().await.expect("it is told why");
    }
    while !told[1].contains("\"type\":7") {
        let chunk =
            tokio::time::timeout(PATIENCE, events_told.chunk()).await.unwrap().unwrap().expect("it is told why");
        told[1] += std::str::from_utf8(&chunk).unwrap();
    }
    for told in told {
        assert!(told.contains("credentials of `developer` do not count any more"), "{told}");
    }
    server.service.until_open(0).await;
    met("nobody is there", || server.metrics.hub_connections.get() == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_negotiation_offers_what_is_there_and_a_connection_without_one_is_counted() {
    let mut config = Config::defaults();
    config.http.rate_limits.streams = 2;
    let server = Server::with(config, "127.0.0.1:0".parse().unwrap(), settings_of_hub()).await;
    let answer = ask(Method::POST, &format!("{}/negotiate?negotiateVersion=1", server.hub()), &[]).await;
    let answer: Value = answer.json().await.unwrap();
    for transport in answer["availableTransports"].as_array().unwrap() {
        assert_eq!(transport["transferFormats"], json!(["Text"]), "no MessagePack is spoken: {transport}");
    }
    let open = async || WebSocket::open(server.address, "/hub/stream", &[]).await;
    let one = open().await.ok().unwrap();
    let refused = open().await.err().unwrap();
    assert_eq!((refused.status, refused.text.contains("rate_limited")), (429, true), "{}", refused.text);
    // With what was negotiated it was counted then.
    let token = answer["connectionToken"].as_str().unwrap();
    let two = WebSocket::open(server.address, &format!("/hub/stream?id={token}"), &[]).await;
    assert!(two.is_ok());
    drop((one, two));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_elsewhere_open_nothing_and_listed_ones_do() {
    let provider = Provider::new("a");
    let (server, _keys) = closed(&provider).await;
    let token = provider.token("reader");
    let target = format!("/hub/stream?access_token={token}");
    let own = format!("http://{}", server.address);
    for (origin, status) in [(EVIL, 403), ("null", 403), (PAGE, 101), (own.as_str(), 101)] {
        let opened = WebSocket::open(server.address, &target, &[("origin", origin)]).await;
        assert_eq!(opened.map_or_else(|answer| answer.status, |_| 101), status, "{origin}");
    }
    let negotiate = format!("{}/negotiate?negotiateVersion=1", server.hub());
    let asks = [
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,x-requested-with,x-signalr-user-agent"),
    ];
    let preflight = ask(Method::OPTIONS, &negotiate, &[&asks[..], &[("origin", PAGE)]].concat()).await;
    let header = |answer: &Response, name: &str| {
        answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    assert_eq!(preflight.status(), 204);
    let allowed = header(&preflight, "access-control-allow-headers");
    assert!(["authorization", "x-requested-with", "x-signalr-user-agent"].iter().all(|name| allowed.contains(name)));
    let bearer = format!("Bearer {token}");
    for (origin, status, allow, with_credentials) in [(PAGE, 200, PAGE, "true"), (EVIL, 403, "", "")] {
        let answer = ask(Method::POST, &negotiate, &[("origin", origin), ("authorization", &bearer)]).await;
        assert_eq!(answer.status().as_u16(), status, "{origin}");
        assert_eq!(header(&answer, "access-control-allow-origin"), allow);
        assert_eq!(header(&answer, "access-control-allow-credentials"), with_credentials);
    }
    server.stop().await;
}

/// Runs again in a process of its own, which logs all that there is to log.
#[test]
fn tokens_in_the_query_are_written_down_nowhere() {
    const CHILD: &str = "STREAMVIEW_TEST_HUB_CANARY";
    let provider = Provider::new("c4nary");
    if std::env::var_os(CHILD).is_some() {
        return tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(says_all(&provider));
    }
    let name = "hub_access::tokens_in_the_query_are_written_down_nowhere";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    let secrets: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("SECRET ")).collect();
    assert!(secrets.len() >= 4, "{said}");
    let logged: Vec<&str> = said.lines().filter(|line| !line.starts_with("SECRET ")).collect();
    assert!(logged.iter().any(|line| line.contains("streamview_manager::hub")), "something is logged: {said}");
    for secret in secrets {
        for line in &logged {
            assert!(!line.contains(secret), "{secret} stands in: {line}");
        }
    }
}

async fn says_all(provider: &Provider) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let (server, _keys) = closed(provider).await;
    let token = provider.token("developer");
    let wrong = format!("c4naryWrong{}", "x".repeat(40));
    let id = negotiated(&server, &token).await;
    for secret in [&token, &wrong, &id, "c4naryPayload"] {
        println!("\nSECRET {secret}");
    }
    let mut answers = Vec::new();
    for target in [
        format!("/hub/stream?access_token={wrong}"),
        format!("/hub/stream?id={wrong}&access_token={token}"),
        format!("/hub/stream?access_token={token}&access_token={wrong}&id={id}"),
    ] {
        match WebSocket::open(server.address, &target, &[]).await {
            Err(answer) => answers.push(answer.text),
            Ok(mut socket) => {
                socket.say(HANDSHAKE).await;
                socket.say("{\"type\":1,\"target\":\"c4naryPayload\",\"arguments\":[\"c4naryPayload\"]}").await;
                socket.say("{\"type\":99,\"c4naryPayload\":\"c4naryPayload\"}").await;
                while let Some(frame) = socket.frame().await {
                    answers.push(frame);
                }
            }
        }
    }
    for (method, url) in [
        (Method::GET, format!("{}?id={id}&access_token={token}", server.hub())),
        (Method::GET, format!("{}?id={wrong}&access_token={wrong}", server.hub())),
        (Method::POST, format!("{}?id={wrong}&access_token={token}", server.hub())),
        (Method::PATCH, format!("{}?id={id}&access_token={token}", server.hub())),
        (Method::GET, format!("http://{}/metrics", server.address)),
        (Method::GET, format!("http://{}/nowhere?access_token={token}", server.address)),
    ] {
        let answer = ask(method, &url, &[]).await;
        answers.push(format!("{:?}", answer.headers()));
        answers.push(answer.text().await.unwrap());
    }
    assert!(answers.len() >= 12);
    // What clients are told is looked through like what is logged.
    for answer in answers {
        eprintln!("ANSWER {}", answer.replace('\n', " "));
    }
    server.stop().await;
}
