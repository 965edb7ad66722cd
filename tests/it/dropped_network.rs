//! A network that goes silent without a word: nothing is closed, nothing is refused, no packet comes back. It is real: the clients
//! live in a network namespace of their own, and what they send is thrown away there from one moment to the next.

use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use streamview::api::{self, ApiState};
use streamview::config::Config;
use streamview::manager::Manager;
use streamview::manager::engines::{EngineKind, Item, Row, RowKind, Select};
use streamview::manager::fault::Fault;
use streamview::manager::live::Live;
use streamview::manager::manager::Parts;
use streamview::manager::preview::{Output, PreviewLimits, Previews, Watchable};
use streamview::manager::queries::{NewQuery, Prepared, Queries, Statements};
use streamview::manager::settings::Limits;
use streamview::platforms::kafka::topics::Topics;
use streamview::streams;
use streamview::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use crate::changes::Killed;
use crate::hub::{Server, Stock, TRANSPORTS, met, node, settings_of_hub};
use crate::rows::Model;

/// Within what the issue promises a query to end that nobody wants any more.
const AT_ONCE: Duration = Duration::from_secs(2);
const CHILD: &str = "STREAMVIEW_TEST_DROPPED_NETWORK";
const NAME: &str = "dropped_network::queries_end_when_the_network_goes_silent_and_slow_readers_keep_theirs";

fn run(words: &str) {
    let mut words = words.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words.clone()).status().unwrap();
    assert!(status.success(), "{:?} failed", words.collect::<Vec<_>>());
}

/// Another machine, as far as the network is concerned.
struct Elsewhere {
    process: Killed,
    _held: ChildStdin,
}

impl Elsewhere {
    const SERVER: &str = "10.99.0.1:0";

    fn new() -> Elsewhere {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo there; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Killed(command.spawn().unwrap());
        let mut line = String::new();
        // It has the namespace from here on.
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
        let _held = process.0.stdin.take().unwrap();
        let elsewhere = Elsewhere { process, _held };
        run("ip link set lo up");
        run(&format!("ip link add name sv0 type veth peer name sv1 netns {}", elsewhere.process.0.id()));
        run("ip addr add 10.99.0.1/24 dev sv0");
        run("ip link set sv0 up");
        elsewhere.run("ip addr add 10.99.0.2/24 dev sv1");
        elsewhere.run("ip link set sv1 up");
        elsewhere
    }

    fn run(&self, words: &str) {
        run(&format!("nsenter --net --target {} {words}", self.process.0.id()));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.process.0.id().to_string(), program]);
        command
    }

    /// From here on nothing of what is sent there leaves it, not even that something has come.
    fn goes_silent(&self) -> Instant {
        self.run("tc qdisc add dev sv1 root pfifo limit 0");
        Instant::now()
    }

    fn is_back(&self) {
        self.run("tc qdisc del dev sv1 root");
    }

    /// Asks for something by a shell, and waits for the answer.
    fn asker(&self, server: SocketAddr, path: &str, body: &str) -> Killed {
        let (ip, port, length) = (server.ip(), server.port(), body.len());
        let head = format!("POST {path} HTTP/1.1\\r\\nHost: {ip}\\r\\nContent-Type: application/json");
        let script = format!(
            "exec 3<>/dev/tcp/{ip}/{port}; printf '{head}\\r\\nContent-Length: {length}\\r\\n\\r\\n%s' '{body}' >&3; \
             exec cat <&3 >/dev/null"
        );
        let mut command = self.command("bash");
        Killed(command.args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap())
    }

    /// Reads a query's rows by a shell: when it has begun it says so, and then does this with descriptor 3.
    fn reader(&self, server: SocketAddr, query: &str, then: &str) -> Killed {
        let (ip, port) = (server.ip(), server.port());
        let request = format!("GET /api/queries/{query}/rows HTTP/1.1\\r\\nHost: {ip}\\r\\n\\r\\n");
        let script =
            format!("exec 3<>/dev/tcp/{ip}/{port}; printf '{request}' >&3; read -r line <&3; echo begun; {then}");
        let mut command = self.command("bash");
        Killed(command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }
}

/// Takes every statement.
struct Gate(Arc<Model>);

#[async_trait]
impl Statements for Gate {
    async fn prepared(&self, _: Option<EngineKind>, sql: &str, _: bool) -> Result<Prepared, Fault> {
        let select = Select { sql: sql.to_owned(), sources: Vec::new() };
        Ok(Prepared { engine: self.0.clone(), select, placed: Box::new(|trouble| trouble) })
    }

    async fn deployed(&self, _: &str) -> Result<(usize, usize), Fault> {
        Ok((0, 0))
    }
}

#[async_trait]
impl Watchable for Gate {
    async fn watchable(&self, _: &str) -> Result<Option<Output>, Fault> {
        Ok(None)
    }

    async fn output_of(&self, _: &str) -> Result<Option<Output>, Fault> {
        Ok(None)
    }
}

/// A server with queries and nothing else.
struct Desk {
    address: SocketAddr,
    engine: Arc<Model>,
    queries: Queries,
}

impl Desk {
    fn new() -> Desk {
        let mut config = Config::defaults();
        config.http.bind = Elsewhere::SERVER.parse().unwrap();
        config.http.allow_anonymous_operations = true;
        config.http.workers = 2;
        config.database.url = streamview::config::SecretUrl::new("postgres://nobody@127.0.0.1:1/nothing");
        let (ops_pool, pool) = streamview::store::pool::read_pools(&config.database).unwrap();
        let engine = Arc::<Model>::default();
        let gate = Arc::new(Gate(engine.clone()));
        let queries = Queries::new(gate.clone(), Limits::default());
        let kafka = Arc::new(Topics::new(&config.kafka));
        let previews = Previews::new(kafka.clone(), None, gate, PreviewLimits::default());
        config.ksqldb.url = "http://127.0.0.1:1".to_owned();
        let manager = Manager::new(Parts {
            settings: streams::settings(&config).unwrap(),
            pool: streamview::store::pool::manager_pool(&config.database).unwrap(),
            kafka,
            schemas: None,
            engines: vec![engine.clone()],
            crash: |_| {},
        });
        let state = ApiState {
            pool,
            ops_pool,
            watch: streamview::store::pool::watch_pools(&config.database).unwrap(),
            database: config.database.clone(),
            settings: config.http.clone(),
            certificates: None,
            gate: None,
            audit: Default::default(),
            serve_reads: true,
            views: Vec::new(),
            desks: Vec::new(),
            ahead: Arc::new(|_| Box::pin(async { None })),
            live: Some(Live::new(queries.clone(), previews)),
            manager: Some(manager),
            engines: Arc::new(Vec::new),
            hub: None,
            metrics: Arc::new(Metrics::new()),
            shutting_down: CancellationToken::new(),
            under_way: Arc::default(),
        };
        let listener = api::listen(config.http.bind).unwrap();
        let (server, addresses) = api::serve(state, listener, Vec::new()).unwrap();
        tokio::spawn(server);
        Desk { address: addresses[0], engine, queries }
    }

    async fn begin(&self) -> String {
        let query = NewQuery { engine: None, sql: "SELECT 1".to_owned(), from_beginning: false, pull: false };
        self.queries.start(query, "ada").await.unwrap().id
    }

    async fn until_ended(&self) {
        met("the engine's query ends", || self.engine.live.load(Ordering::SeqCst) == 0).await;
    }

    fn feed(&self, bytes: usize) {
        let values = vec!["x".repeat(bytes).into()];
        self.engine.feed(&Item::Row(Row { kind: RowKind::Insert, values }));
    }

    /// Feeds as much as is taken, and a little ahead of it.
    async fn flood(&self) {
        let (mut fed, mut ticks) = (0, tokio::time::interval(Duration::from_millis(1)));
        while let Some(query) = self.queries.list(None).first() {
            while fed < query.bytes + 2_000_000 {
                self.feed(10_000);
                fed += 10_000;
            }
            ticks.tick().await;
        }
    }
}

fn begun(reader: &mut Killed) -> BufReader<std::process::ChildStdout> {
    let mut lines = BufReader::new(reader.0.stdout.take().unwrap());
    assert_eq!(line(&mut lines), "begun");
    lines
}

fn line(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Runs again where it may have networks of its own.
#[test]
fn queries_end_when_the_network_goes_silent_and_slow_readers_keep_theirs() {
    if std::env::var_os(CHILD).is_some() {
        let Some(folder) = node() else { return };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(async {
            let elsewhere = Elsewhere::new();
            hub_queries_end(&elsewhere, &folder).await;
            rows_end(&elsewhere).await;
            calls_end(&elsewhere).await;
            slow_readers_stay(&elsewhere, &folder).await;
        });
    }
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    let is_open = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).args(["ip", "link", "set", "lo", "up"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(is_open) else {
        let text = "\nNOT TESTED: that queries end when the network goes silent: no network namespace can be made here (root, or \
                    user namespaces, with `unshare`, `nsenter`, `ip` and `tc`)\n\n";
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        assert!(std::env::var_os("CI").is_none(), "in CI the network has to be dropped");
        return;
    };
    // Where it is made for the first time it comes by the network, which the child does not have.
    if node().is_none() {
        return;
    }
    let child = std::env::current_exe().unwrap();
    let output =
        Command::new("unshare").args(*way).arg(child).args(["--exact", NAME, "--nocapture"]).env(CHILD, "1").output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    said.lines().filter(|line| line.contains("ended after")).for_each(|line| println!("{line}"));
}

async fn hub_queries_end(elsewhere: &Elsewhere, folder: &Path) {
    let mut config = Config::defaults();
    config.http.allow_anonymous_operations = true;
    let server = Server::with(config, Elsewhere::SERVER.parse().unwrap(), settings_of_hub()).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/stock_client/hub.mjs");
    for transport in TRANSPORTS {
        // One whose rows come all the time, and one who waits for its first.
        for what in ["endless", "stopping"] {
            let mut command = elsewhere.command("node");
            command.args([script, &server.hub(), transport, what]).current_dir(folder);
            let mut client = Stock::run(&mut command);
            client.tells().await;
            server.service.until_open(1).await;
            let silent = elsewhere.goes_silent();
            server.service.until_open(0).await;
            let after = silent.elapsed();
            println!("{transport} {what}: ended after {after:?}");
            assert!(after < AT_ONCE, "{transport} {what}: the query ran {after:?} longer");
            elsewhere.is_back();
        }
    }
    met("nobody is there", || server.metrics.hub_connections.get() == 0).await;
    server.stop().await;
}

async fn rows_end(elsewhere: &Elsewhere) {
    let desk = Desk::new();
    for is_busy in [false, true] {
        let query = desk.begin().await;
        let mut reader = elsewhere.reader(desk.address, &query, "cat <&3 >/dev/null");
        begun(&mut reader);
        let end = async {
            if is_busy {
                // It is in the middle of it.
                met("rows are read", || desk.queries.list(None).iter().any(|query| query.bytes > 5_000_000)).await;
            }
            let silent = elsewhere.goes_silent();
            desk.until_ended().await;
            silent.elapsed()
        };
        let (after, ()) = tokio::join!(end, async {
            if is_busy {
                desk.flood().await;
            }
        });
        println!("rows, busy {is_busy}: ended after {after:?}");
        assert!(after < AT_ONCE, "busy {is_busy}: the query ran {after:?} longer");
        elsewhere.is_back();
    }
}

/// Those that are not answered yet: a trial that waits for rows, and queries whose engine has not begun them.
async fn calls_end(elsewhere: &Elsewhere) {
    let desk = Desk::new();
    for (path, body) in [
        ("/api/test/query", r#"{"query":"SELECT 1","seconds":50}"#),
        ("/api/test/query", r#"{"query":"SELECT HANGS","seconds":50}"#),
        ("/api/queries", r#"{"sqlScript":"SELECT HANGS"}"#),
    ] {
        let asker = elsewhere.asker(desk.address, path, body);
        met("it runs", || desk.engine.live.load(Ordering::SeqCst) == 1).await;
        let silent = elsewhere.goes_silent();
        desk.until_ended().await;
        let after = silent.elapsed();
        println!("{path} {body}: ended after {after:?}");
        assert!(after < AT_ONCE, "{path} {body}: the query ran {after:?} longer");
        elsewhere.is_back();
        drop(asker);
    }
}

/// Reads nothing for some seconds, with as much for it as there is room on the way; then it reads on.
async fn slow_readers_stay(elsewhere: &Elsewhere, folder: &Path) {
    const ENOUGH: usize = 15_000_000;
    let desk = Desk::new();
    let query = desk.begin().await;
    let mut reader =
        elsewhere.reader(desk.address, &query, &format!("read -r go; head -c {ENOUGH} <&3 | wc -c; read -r go"));
    let mut lines = begun(&mut reader);
    (0..40).for_each(|_| desk.feed(500_000));
    // So long another one takes rows that come every 30 ms.
    let mut config = Config::defaults();
    config.http.allow_anonymous_operations = true;
    let server = Server::with(config, Elsewhere::SERVER.parse().unwrap(), settings_of_hub()).await;
    let mut other = Stock::node(&folder.to_path_buf(), "hub.mjs", &[&server.hub(), "WebSockets", "endless"]);
    for _ in 0..150 {
        other.tells().await;
    }
    let told = desk.queries.list(None)[0].bytes;
    assert!(told < 20_000_000, "it was slow: not all was told to it, {told}");
    assert_eq!(desk.engine.live.load(Ordering::SeqCst), 1, "a slow reader is there");
    let stdin = reader.0.stdin.as_mut().unwrap();
    stdin.write_all(b"go\n").unwrap();
    assert_eq!(line(&mut lines), ENOUGH.to_string());
    drop(reader);
    desk.until_ended().await;
    server.stop().await;
}
