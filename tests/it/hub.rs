//! The hub as its stock clients use it, over all transports, with methods of this test behind it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use streamview::api::hub::{HubParts, HubSettings};
use streamview::api::{self, ApiState};
use streamview::config::Config;
use streamview::login::Gate;
use streamview::manager::hub::{Call, Client, Groups, HubService, Items, Method, PushText};
use streamview::telemetry::metrics::Metrics;
use streamview_lab::servers::{build_once, cache_folder, free_port};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::changes::{Killed, lines_of};
use crate::support::{PATIENCE, until};

pub const TRANSPORTS: [&str; 3] = ["WebSockets", "ServerSentEvents", "LongPolling"];
/// Within what the issue promises a query to end that nobody wants any more.
const AT_ONCE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Service {
    groups: Groups,
    pub open: Arc<AtomicUsize>,
    left: AtomicUsize,
    here: AtomicUsize,
}

/// Counts a stream as long as it is held.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(open: &Arc<AtomicUsize>) -> Held {
        open.fetch_add(1, Ordering::SeqCst);
        Held(Arc::clone(open))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub async fn met(what: &str, condition: impl Fn() -> bool) {
    until(what, PATIENCE, || std::future::ready(condition().then_some(()))).await;
}

pub fn row(n: usize) -> String {
    json!({ "row": { "columns": [format!("order-{n}"), "12.50"] } }).to_string()
}

#[async_trait]
impl HubService for Service {
    fn method(&self, target: &str) -> Option<Method> {
        match target.to_lowercase().as_str() {
            "executeadhoc" => Some(Method::Streaming),
            "getquerylimits" | "joinstreamgroup" | "leavestreamgroup" => Some(Method::Plain),
            _ => None,
        }
    }

    async fn invoke(&self, call: Call) -> Result<Value, String> {
        let group = call.arguments.first().and_then(Value::as_str).unwrap_or_default();
        match call.target.to_lowercase().as_str() {
            "joinstreamgroup" => self.groups.join(group, &call.client),
            "leavestreamgroup" => self.groups.leave(group, &call.client),
            _ => {
                self.here.fetch_add(1, Ordering::SeqCst);
                return Ok(json!({ "mine": call.caller.name, "develops": call.caller.may_develop }));
            }
        };
        Ok(Value::Null)
    }

    async fn stream(&self, call: Call) -> Result<Items, String> {
        if !call.caller.may_develop {
            return Err("Queries ask for the role `developer`.".to_owned());
        }
        let held = Held::new(&self.open);
        let query = call.arguments.first().and_then(Value::as_str).unwrap_or_default().to_owned();
        if query == "endless" {
            let ticks = tokio::time::interval(Duration::from_millis(30));
            let rows = stream::unfold((0, ticks, held), |(n, mut ticks, held)| async move {
                ticks.tick().await;
                Some((Ok(row(n)), (n + 1, ticks, held)))
            });
            return Ok(rows.boxed());
        }
        if query == "quiet" {
            return Ok(stream::pending().map(move |row| (&held, row).1).boxed());
        }
        let mut words = query.split(' ');
        let rows: usize =
            words.next().and_then(|rows| rows.parse().ok()).ok_or("Only SELECT is allowed (line 1, column 1).")?;
        let end = query.ends_with("error").then(|| Err("The engine ended the query: out of memory.".to_owned()));
        let rows = (0..rows).map(|n| Ok(row(n))).chain(end);
        Ok(stream::iter(rows).map(move |row| (&held, row).1).boxed())
    }

    fn left(&self, client: &Client) {
        self.groups.leave_all(client);
        self.left.fetch_add(1, Ordering::SeqCst);
    }
}

impl Service {
    pub async fn until_open(&self, streams: usize) {
        met("so many streams are open", || self.open.load(Ordering::SeqCst) == streams).await;
    }
}

/// A server with a hub and nothing else.
pub struct Server {
    pub address: SocketAddr,
    pub service: Arc<Service>,
    shutting_down: CancellationToken,
    handle: actix_web::dev::ServerHandle,
    running: JoinHandle<std::io::Result<()>>,
    pub metrics: Arc<Metrics>,
}

pub fn settings_of_hub() -> HubSettings {
    HubSettings { max_connections_per_caller: 10_000, ..HubSettings::default() }
}

impl Server {
    pub async fn start() -> Server {
        Server::with(Config::defaults(), "127.0.0.1:0".parse().unwrap(), settings_of_hub()).await
    }

    pub async fn with(config: Config, bind: SocketAddr, hub: HubSettings) -> Server {
        // Nothing is read or written here.
        Server::over("postgres://nobody@127.0.0.1:1/nothing", config, bind, hub).await
    }

    /// The same with the API keys of a database.
    pub async fn over(database: &str, mut config: Config, bind: SocketAddr, hub: HubSettings) -> Server {
        streamview::schemas::client::install_tls();
        config.http.bind = bind;
        config.http.workers = 2;
        config.database.url = streamview::config::SecretUrl::new(database);
        let (ops_pool, pool) = streamview::store::pool::read_pools(&config.database).unwrap();
        let (service, shutting_down) = (Arc::<Service>::default(), CancellationToken::new());
        let metrics = Arc::new(Metrics::new());
        let gate = Gate::new(&config.auth, &config.database).unwrap();
        if let Some(gate) = &gate {
            tokio::spawn(Arc::clone(gate).run(shutting_down.clone()));
        }
        let state = ApiState {
            pool,
            ops_pool,
            watch: streamview::store::pool::watch_pools(&config.database).unwrap(),
            database: config.database.clone(),
            settings: config.http.clone(),
            certificates: None,
            gate,
            audit: Default::default(),
            serve_reads: true,
            views: Vec::new(),
            desks: Vec::new(),
            ahead: Arc::new(|_| Box::pin(async { None })),
            live: None,
            manager: None,
            engines: Arc::new(Vec::new),
            hub: Some(HubParts { service: Arc::clone(&service) as Arc<dyn HubService>, settings: hub }),
            metrics: Arc::clone(&metrics),
            shutting_down: shutting_down.clone(),
            under_way: Arc::default(),
        };
        let listener = api::listen(config.http.bind).unwrap();
        let (server, addresses) = api::serve(state, listener, Vec::new()).unwrap();
        let (handle, running) = (server.handle(), tokio::spawn(server));
        Server { address: addresses[0], service, shutting_down, handle, running, metrics }
    }

    pub fn hub(&self) -> String {
        format!("http://{}/hub/stream", self.address)
    }

    pub async fn stop(self) {
        self.shutting_down.cancel();
        self.handle.stop(true).await;
        self.running.await.unwrap().unwrap();
    }
}

/// Node with the stock client, in the cache; made once. `None` where there is no node, which is said aloud and in CI a failure.
pub fn node() -> Option<PathBuf> {
    let is_there = |program| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !is_there("node") || !is_there("npm") {
        not_tested("there is neither node nor npm here");
        return None;
    }
    let pinned = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/stock_client/signalr");
    let folder = cache_folder().unwrap().join("servers/stock-signalr-10.0.11");
    build_once(&folder, |unfinished| {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(format!("{pinned}/{file}"), unfinished.join(file))?;
        }
        let arguments = ["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"];
        let status = Command::new("npm").args(arguments).current_dir(unfinished).status()?;
        anyhow::ensure!(status.success(), "npm {arguments:?} failed");
        Ok(())
    })
    .unwrap();
    Some(folder)
}

/// Python with the stock client, likewise.
fn python() -> Option<PathBuf> {
    const PACKAGE: &str = "signalrcore==1.0.2";
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        not_tested("there is no python3 here");
        return None;
    }
    let folder = cache_folder().unwrap().join("servers/stock-signalrcore-1.0.2");
    build_once(&folder, |unfinished| {
        let run = |program: PathBuf, arguments: &[&str]| {
            let status =
                Command::new(&program).args(arguments).current_dir(unfinished).stdout(Stdio::null()).status()?;
            anyhow::ensure!(status.success(), "{} {arguments:?} failed", program.display());
            anyhow::Ok(())
        };
        run("python3".into(), &["-m", "venv", "venv"])?;
        run(unfinished.join("venv/bin/python"), &["-m", "pip", "install", "--quiet", PACKAGE])
    })
    .unwrap();
    Some(folder.join("venv/bin/python"))
}

fn not_tested(why: &str) {
    use std::io::Write as _;
    let text = format!("\nNOT TESTED: the hub with its stock clients: {why}\n\n");
    // Past the capture of test output: a run without these tests must not look like one with them.
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    assert!(std::env::var_os("CI").is_none(), "in CI the stock clients have to run");
}

/// A stock client at work.
pub struct Stock {
    child: Killed,
    lines: UnboundedReceiver<String>,
}

impl Stock {
    pub fn node(folder: &PathBuf, script: &str, arguments: &[&str]) -> Stock {
        let mut command = Command::new("node");
        command.arg(format!("{}/tests/it/stock_client/{script}", env!("CARGO_MANIFEST_DIR"))).current_dir(folder);
        Stock::run(command.args(arguments))
    }

    pub fn run(command: &mut Command) -> Stock {
        let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
        let lines = lines_of(child.0.stdout.take().unwrap());
        Stock { child, lines }
    }

    /// What it tells next.
    pub async fn tells(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await.expect("the client tells something");
        let line = line.expect("the client still runs");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// All that it tells until it ends, by its first member.
    pub async fn tells_all(&mut self) -> BTreeMap<String, Value> {
        let mut told = BTreeMap::new();
        while let Some(line) = tokio::time::timeout(PATIENCE, self.lines.recv()).await.expect("the client goes on") {
            let line: BTreeMap<String, Value> = serde_json::from_str(&line).unwrap();
            told.extend(line);
        }
        told
    }
}

/// Sends something to the group as soon as somebody is in it.
fn push_when_joined(service: &Arc<Service>) -> JoinHandle<()> {
    let service = Arc::clone(service);
    tokio::spawn(async move {
        met("somebody is in the group", || service.groups.size("orders") > 0).await;
        service.groups.send("orders", &PushText::new("ReceiveMessage", "{\"orderId\":\"order-1\"}"));
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_client_does_everything_on_every_transport() {
    let Some(folder) = node() else { return };
    for transport in TRANSPORTS {
        let server = Server::start().await;
        let pushing = push_when_joined(&server.service);
        let mut client = Stock::node(&folder, "hub.mjs", &[&server.hub(), transport, "everything"]);
        let told = client.tells_all().await;
        pushing.await.unwrap();
        let limits = json!({ "mine": null, "develops": true });
        let error = |text: &str| json!({ "error": text });
        for (what, expected) in [
            ("connected", json!(true)),
            ("stream", json!({ "items": [row(0), row(1), row(2)] })),
            ("failing", json!({ "items": [row(0), row(1)], "error": "The engine ended the query: out of memory." })),
            ("refused", json!({ "items": [], "error": "Only SELECT is allowed (line 1, column 1)." })),
            ("invoke", json!({ "value": limits })),
            ("lower", json!({ "value": limits })),
            ("send", json!({ "value": null })),
            ("unknown", error("There is no method 'NoSuchMethod' here.")),
            ("unknownStream", json!({ "items": [], "error": "There is no method 'NoSuchStream' here." })),
            ("plainOfStream", error("'ExecuteAdHoc' gives a stream: ask for it with stream, not with invoke or send.")),
            (
                "streamOfPlain",
                json!({ "items": [], "error": "'GetQueryLimits' gives one answer: ask for it with invoke, not with stream." }),
            ),
            ("join", json!({ "value": null })),
            ("pushed", json!("{\"orderId\":\"order-1\"}")),
            ("leave", json!({ "value": null })),
            ("disposed", json!({ "items": 3 })),
            ("after", json!({ "value": limits })),
        ] {
            assert_eq!(told.get(what), Some(&expected), "{transport}: {what} of {told:?}");
        }
        let too_long =
            "Server returned an error on close: A message has more than 32768 bytes, which is as many as may be sent.";
        assert_eq!(told["long"], error(too_long), "{transport}");
        assert_eq!(told["closed"], too_long, "{transport}");
        assert_eq!(server.service.here.load(Ordering::SeqCst), 4, "{transport}: what was sent was called, too");
        server.service.until_open(0).await;
        met("it has left", || server.service.left.load(Ordering::SeqCst) == 1).await;
        met("nobody is there", || server.metrics.hub_connections.get() == 0).await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_disposes_dies_or_closes_a_tab_runs_no_query_two_seconds_later() {
    let Some(folder) = node() else { return };
    let server = Server::start().await;
    for transport in TRANSPORTS {
        let mut client = Stock::node(&folder, "hub.mjs", &[&server.hub(), transport, "endless"]);
        for _ in 0..3 {
            assert!(client.tells().await["item"].is_string());
        }
        server.service.until_open(1).await;
        let killed = Instant::now();
        client.child.0.kill().unwrap();
        server.service.until_open(0).await;
        assert!(killed.elapsed() < AT_ONCE, "{transport}: the query ran {:?} longer", killed.elapsed());
    }
    let mut tab = Stock::node(&folder, "tab.mjs", &[&server.hub().replace("http", "ws")]);
    assert_eq!(tab.lines.recv().await.as_deref(), Some("streams"));
    let closed = Instant::now();
    server.service.until_open(0).await;
    assert!(closed.elapsed() < AT_ONCE, "the query ran {:?} longer", closed.elapsed());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_sent_away_when_the_process_stops_and_come_back_by_themselves() {
    let Some(folder) = node() else { return };
    // Nobody else is given it between the two.
    let address = (Ipv4Addr::LOCALHOST, free_port().unwrap()).into();
    let server = Server::with(Config::defaults(), address, settings_of_hub()).await;
    let hub = server.hub();
    let mut there: Vec<Stock> =
        TRANSPORTS.iter().map(|transport| Stock::node(&folder, "hub.mjs", &[&hub, transport, "stopping"])).collect();
    let mut back: Vec<Stock> =
        TRANSPORTS.iter().map(|transport| Stock::node(&folder, "hub.mjs", &[&hub, transport, "reconnect"])).collect();
    for client in &mut there {
        assert_eq!(client.tells().await, json!({ "connected": true }));
    }
    for client in &mut back {
        assert!(client.tells().await["invoke"]["value"].is_object());
    }
    server.service.until_open(3).await;
    let service = Arc::clone(&server.service);
    let stopping = Instant::now();
    server.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(8), "{:?}", stopping.elapsed());
    assert_eq!(service.open.load(Ordering::SeqCst), 0);
    let next = Server::with(Config::defaults(), address, settings_of_hub()).await;
    let why = "Server returned an error on close: The server stops. Connect again.";
    for (client, transport) in there.iter_mut().zip(TRANSPORTS) {
        let told = client.tells().await;
        // Who is between two polls just then finds nobody there any more.
        assert!(
            told["closed"] == why || transport == "LongPolling" && told["closed"].is_string(),
            "{transport}: {told}"
        );
    }
    for client in &mut back {
        assert!(client.tells().await["reconnecting"].is_string());
        assert_eq!(client.tells().await, json!({ "reconnected": true }));
        assert!(client.tells().await["invoke"]["value"].is_object());
    }
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_python_client_streams_calls_and_leaves_without_a_word() {
    let Some(python) = python() else { return };
    let server = Server::start().await;
    let pushing = push_when_joined(&server.service);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/stock_client/hub.py");
    let mut client = Stock::run(Command::new(python).args([script, &server.hub(), "everything", "none"]));
    assert_eq!(client.tells().await, json!({ "stream": [row(0), row(1), row(2)] }));
    assert_eq!(client.tells().await, json!({ "GetQueryLimits": { "mine": null, "develops": true } }));
    let mut told = vec![client.tells().await, client.tells().await, client.tells().await];
    pushing.await.unwrap();
    while !told.iter().any(|line| line["item"].is_string()) {
        told.push(client.tells().await);
    }
    for expected in [
        json!({ "JoinStreamGroup": null }),
        json!({ "pushed": "{\"orderId\":\"order-1\"}" }),
        json!({ "error": "There is no method 'NoSuchMethod' here." }),
    ] {
        while !told.contains(&expected) {
            told.push(client.tells().await);
        }
    }
    server.service.until_open(1).await;
    let killed = Instant::now();
    client.child.0.kill().unwrap();
    server.service.until_open(0).await;
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
    server.stop().await;
}
