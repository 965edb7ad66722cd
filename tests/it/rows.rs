//! Rows that people watch, over HTTP and by the hub's methods: a real Kafka, a real Postgres behind the manager, and an engine
//! that the test has in its hand.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use streamview::api::{self, ApiState};
use streamview::config::{Config, SecretUrl};
use streamview::login::audit::AuditLog;
use streamview::manager::Manager;
use streamview::manager::catalog::{Column, DataType, Format, Source};
use streamview::manager::engines::{
    AdHoc, Capabilities, Changes, Deployment, Details, End, Engine, EngineKind, Explained, Handle, Item, Observed,
    RestorePoint, Row, RowKind, Rows, Select, StopMode, Stopped, Trouble,
};
use streamview::manager::hub::{Call, Caller, Client, ConnectionId, HubService};
use streamview::manager::live::Live;
use streamview::manager::manager::{Declarer, DeployOptions, ExpectedSource, NewDefinition, Parts};
use streamview::manager::ports::From;
use streamview::manager::preview::{PreviewLimits, Previews, Told, Watcher};
use streamview::platforms::kafka::topics::Topics;
use streamview::schemas::client::install_tls;
use streamview::store::pool;
use streamview::streams;
use streamview::telemetry::metrics::Metrics;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};
use crate::topics::readers;

/// Within what a query ends that nobody wants any more.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Counts the queries that run in it.
#[derive(Default)]
pub struct Model {
    pub live: Arc<AtomicUsize>,
    feeds: Mutex<Vec<mpsc::UnboundedSender<Item>>>,
}

struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Model {
    pub fn feed(&self, item: &Item) {
        self.feeds.lock().unwrap().iter().for_each(|feed| drop(feed.send(item.clone())));
    }

    async fn until_ended(&self) {
        let begun = Instant::now();
        until("the engine's query ends", PATIENCE, || async { (self.live.load(Ordering::SeqCst) == 0).then_some(()) })
            .await;
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    }
}

#[async_trait]
impl Engine for Model {
    fn kind(&self) -> EngineKind {
        EngineKind::Ksqldb
    }
    async fn keeps_state(&self, _: &Select, _: &Select) -> Result<(), String> {
        Ok(())
    }
    async fn capabilities(&self) -> Result<Capabilities, Trouble> {
        Err(Trouble::Unavailable("not here".to_owned()))
    }
    async fn explain(&self, _: &Select) -> Result<Explained, Trouble> {
        // As ksqlDB says it of a table: its key first.
        let columns = vec![column("CUSTOMER"), column("N")];
        Ok(Explained { columns, changes: Changes::Upsert, plan: String::new(), only_adhoc: None })
    }
    async fn deploy(&self, _: &Deployment) -> Result<Handle, Trouble> {
        Err(Trouble::Unavailable("not here".to_owned()))
    }
    async fn observe(&self) -> Result<Vec<Observed>, Trouble> {
        Ok(Vec::new())
    }
    async fn details(&self, _: &str) -> Result<Details, Trouble> {
        Ok(Details::default())
    }
    async fn stop(&self, _: &Deployment, _: &Handle, _: StopMode) -> Result<Stopped, Trouble> {
        Ok(Stopped::WithoutState)
    }
    async fn resume(&self, _: &Handle) -> Result<(), Trouble> {
        Ok(())
    }
    async fn remove(&self, _: &Handle, _: &[RestorePoint]) -> Result<(), Trouble> {
        Ok(())
    }
    async fn sources(&self) -> Result<Vec<Source>, Trouble> {
        Ok(Vec::new())
    }
    /// One of a text that says so never begins.
    async fn query(&self, query: AdHoc) -> Result<Rows, Trouble> {
        self.live.fetch_add(1, Ordering::SeqCst);
        let leaving = Leaving(Arc::clone(&self.live));
        if query.select.sql.contains("HANGS") {
            return std::future::pending().await;
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        self.feeds.lock().unwrap().push(sender);
        let header = Item::Header { columns: vec![column("N")], schema: "`N` BIGINT".to_owned() };
        let fed = stream::unfold((receiver, leaving), |(mut receiver, leaving)| async {
            Some((receiver.recv().await?, (receiver, leaving)))
        });
        Ok(stream::iter([header]).chain(fed).boxed())
    }
}

fn column(name: &str) -> Column {
    Column { name: name.to_owned(), data_type: DataType::BigInt, nullable: true }
}

fn number(value: i64, kind: RowKind) -> Item {
    Item::Row(Row { kind, values: vec![value.into()] })
}

/// A manager of its own over the world's database and topics, and a server in front of it.
struct Desk {
    world: World,
    manager: Manager,
    live: Live,
    engine: Arc<Model>,
    address: SocketAddr,
    http: reqwest::Client,
    audit: AuditLog,
    config: Config,
}

impl Desk {
    async fn new() -> Desk {
        install_tls();
        let world = World::new(2).await;
        let mut config = Config::defaults();
        config.database.url = SecretUrl::new(&world.database);
        config.kafka.bootstrap_servers.clone_from(&world.kafka);
        config.ksqldb.url = "http://127.0.0.1:1".to_owned();
        config.http.bind = "127.0.0.1:0".parse().unwrap();
        config.http.workers = 2;
        let engine = Arc::<Model>::default();
        let manager = Manager::new(Parts {
            settings: streams::settings(&config).unwrap(),
            pool: pool::manager_pool(&config.database).unwrap(),
            kafka: Arc::new(Topics::new(&config.kafka)),
            schemas: None,
            engines: vec![engine.clone()],
            crash: |_| {},
        });
        let topic = world.topic.clone();
        let source = Source {
            name: "orders".to_owned(),
            topic,
            format: Format::Json,
            columns: vec![column("N")],
            event_time: None,
            table: None,
        };
        let by = Declarer { name: "ada", is_operator: true };
        manager.put_source(source, by, ExpectedSource::Any).await.unwrap();
        let live = Live::of(&manager);
        let (ops_pool, reads) = pool::read_pools(&config.database).unwrap();
        let state = ApiState {
            pool: reads,
            ops_pool,
            watch: pool::watch_pools(&config.database).unwrap(),
            database: config.database.clone(),
            settings: config.http.clone(),
            certificates: None,
            gate: None,
            audit: Default::default(),
            serve_reads: true,
            views: Vec::new(),
            desks: Vec::new(),
            ahead: Arc::new(|_| Box::pin(async { None })),
            live: Some(live.clone()),
            manager: Some(manager.clone()),
            engines: Arc::new(Vec::new),
            hub: None,
            metrics: Arc::new(Metrics::new()),
            shutting_down: CancellationToken::new(),
            under_way: Arc::default(),
        };
        let audit = state.audit.clone();
        let listener = api::listen(config.http.bind).unwrap();
        let (server, addresses) = api::serve(state, listener, Vec::new()).unwrap();
        tokio::spawn(server);
        let (address, http) = (addresses[0], reqwest::Client::new());
        Desk { world, manager, live, engine, address, http, audit, config }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn begin(&self, sql: &str) -> reqwest::Response {
        self.http.post(self.url("/api/queries")).json(&json!({ "sqlScript": sql })).send().await.unwrap()
    }

    async fn publish(&self, numbers: std::ops::Range<i64>) {
        let record = |number: i64| TestRecord {
            payload: Some(format!("{{\"N\":{number}}}").into_bytes()),
            partition: Some(0),
            ..TestRecord::default()
        };
        self.world.publish(numbers.map(record)).await;
    }

    fn call(&self, client: &Client, target: &str, arguments: Vec<Value>) -> Call {
        let caller = Caller { counted_as: "ada".to_owned(), may_develop: true, ..Caller::default() };
        Call { client: client.clone(), caller: Arc::new(caller), target: target.to_owned(), arguments }
    }
}

/// Events of an answer without end.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn of(response: reqwest::Response) -> Events {
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        Events { response, text: String::new() }
    }

    /// The next event: its name and its data.
    async fn next(&mut self) -> (String, Value) {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let event = field("event: ").zip(field("data: "));
                self.text = rest.to_owned();
                if let Some((name, data)) = event {
                    return (name, serde_json::from_str(&data).unwrap());
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("something comes");
            self.text.push_str(std::str::from_utf8(&chunk.unwrap().expect("it goes on")).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_runs_is_listed_and_ends_with_its_reader() {
    let desk = Desk::new().await;
    let begun = desk.begin("SELECT * FROM orders").await;
    assert_eq!(begun.status(), 201);
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    let query: Value = begun.json().await.unwrap();
    assert_eq!(location, format!("/api/queries/{}/rows", query["id"].as_str().unwrap()));
    let list: Value = desk.http.get(desk.url("/api/queries")).send().await.unwrap().json().await.unwrap();
    let seen = (&list["items"][0]["sqlScript"], &list["items"][0]["isRead"], &list["items"][0]["engine"]);
    assert_eq!(seen, (&json!("SELECT * FROM orders"), &json!(false), &json!("ksqldb")));

    let mut events = Events::of(desk.http.get(desk.url(&location)).send().await.unwrap()).await;
    let (name, header) = events.next().await;
    assert_eq!((name.as_str(), &header["header"]["schema"]), ("header", &json!("`N` BIGINT")));
    desk.engine.feed(&number(1, RowKind::Insert));
    desk.engine.feed(&number(1, RowKind::Delete));
    assert_eq!(events.next().await, ("row".to_owned(), json!({ "row": { "columns": [1] } })));
    let gone = json!({ "row": { "columns": [1], "tombstone": true }, "kind": "delete" });
    assert_eq!(events.next().await, ("row".to_owned(), gone));
    let twice = desk.http.get(desk.url(&location)).send().await.unwrap();
    assert_eq!(
        (twice.status().as_u16(), &twice.json::<Value>().await.unwrap()["code"]),
        (409, &json!("query_already_read"))
    );

    drop(events);
    desk.engine.until_ended().await;
    let list: Value = desk.http.get(desk.url("/api/queries")).send().await.unwrap().json().await.unwrap();
    assert_eq!(list["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_ended_by_somebody_and_its_reader_is_told() {
    let desk = Desk::new().await;
    let query: Value = desk.begin("SELECT * FROM orders").await.json().await.unwrap();
    let path = format!("/api/queries/{}", query["id"].as_str().unwrap());
    let mut events = Events::of(desk.http.get(desk.url(&format!("{path}/rows"))).send().await.unwrap()).await;
    events.next().await;
    assert_eq!(desk.http.delete(desk.url(&path)).send().await.unwrap().status(), 204);
    let (name, end) = events.next().await;
    assert_eq!((name.as_str(), &end["end"]), ("end", &json!("cancelled")));
    desk.engine.until_ended().await;
    let again = desk.http.delete(desk.url(&path)).send().await.unwrap();
    assert_eq!(
        (again.status().as_u16(), &again.json::<Value>().await.unwrap()["code"]),
        (404, &json!("query_not_found"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_ended_while_it_begins_has_not_begun() {
    let desk = Desk::new().await;
    let text = "SELECT N AS HANGS FROM orders";
    let begin = desk.begin(text);
    let end = async {
        let url = desk.url("/api/queries");
        let begins = || async { (desk.engine.live.load(Ordering::SeqCst) == 1).then_some(()) };
        until("it begins", PATIENCE, begins).await;
        let list: Value = desk.http.get(&url).send().await.unwrap().json().await.unwrap();
        let id = list["items"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(desk.http.delete(format!("{url}/{id}")).send().await.unwrap().status(), 204);
        desk.engine.until_ended().await;
        id
    };
    let (answer, id) = tokio::join!(begin, end);
    assert_eq!(answer.status(), 409);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "query_ended");
    let detail = format!("Query `{id}` has ended before its engine had begun it: ended by `");
    assert!(problem["detail"].as_str().unwrap().starts_with(&detail), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_caller_goes_before_it_is_answered_is_in_the_audit_log() {
    let desk = Desk::new().await;
    let (audit, config) = (desk.audit.clone(), &desk.config);
    tokio::spawn(audit.run(config.audit.clone(), config.database.clone(), CancellationToken::new()));
    let body = json!({ "sqlScript": "SELECT N AS HANGS FROM orders" }).to_string();
    let mut caller = tokio::net::TcpStream::connect(desk.address).await.unwrap();
    let head = format!("POST /api/queries HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json", desk.address);
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    caller.write_all(request.as_bytes()).await.unwrap();
    let begins = || async { (desk.engine.live.load(Ordering::SeqCst) == 1).then_some(()) };
    until("it begins", PATIENCE, begins).await;
    drop(caller);
    desk.engine.until_ended().await;
    let noted = "select count(*) from audit_log where route = '/api/queries' and (status, code) = (499, 'cancelled')";
    until("it is noted", PATIENCE, || async { (desk.world.number(noted).await == 1).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_run_is_refused_with_its_place_and_its_limit() {
    let desk = Desk::new().await;
    let refused = desk.begin("SELECT *\nFROM secrets").await;
    assert_eq!(refused.status(), 422);
    let problem: Value = refused.json().await.unwrap();
    let error = &problem["statementErrors"][0];
    assert_eq!((&error["line"], &error["column"]), (&json!(2), &json!(6)), "{problem}");
    for _ in 0..2 {
        assert_eq!(desk.begin("SELECT * FROM orders").await.status(), 201);
    }
    let full = desk.begin("SELECT * FROM orders").await;
    assert_eq!(full.status(), 429);
    assert_eq!(full.headers()["retry-after"], "5");
    let problem: Value = full.json().await.unwrap();
    let told = (&problem["code"], &problem["setting"], &problem["limit"]);
    assert_eq!(told, (&json!("query_limit_reached"), &json!("manager.limits.queries_per_user"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_tried_for_its_first_rows() {
    let desk = Desk::new().await;
    let asked = desk.http.post(desk.url("/api/test/query")).json(&json!({ "query": "SELECT * FROM orders" })).send();
    let asked = tokio::spawn(asked);
    until("it runs", PATIENCE, || async { (!desk.engine.feeds.lock().unwrap().is_empty()).then_some(()) }).await;
    (0..2).for_each(|value| desk.engine.feed(&number(value, RowKind::Insert)));
    desk.engine.feed(&Item::End(End::Complete));
    let first: Value = asked.await.unwrap().unwrap().json().await.unwrap();
    let rows = json!([{ "row": { "columns": [0] } }, { "row": { "columns": [1] } }]);
    assert_eq!(first, json!({ "schema": "`N` BIGINT", "rows": rows, "end": "complete", "reason": null }));

    let tries = |body: Value| desk.http.post(desk.url("/api/test/query")).json(&body).send();
    for (field, value) in [("rows", 0), ("rows", 101), ("seconds", 0), ("seconds", 51)] {
        let refused = tries(json!({ "query": "SELECT * FROM orders", field: value })).await.unwrap();
        assert_eq!(refused.status(), 400, "{field} {value}");
        assert!(refused.text().await.unwrap().contains("must be a whole number from 1 to"), "{field} {value}");
    }
    let first: Value =
        tries(json!({ "query": "SELECT * FROM orders", "seconds": 1 })).await.unwrap().json().await.unwrap();
    assert_eq!(first["end"], "limit", "{first}");
    assert!(first["reason"].as_str().unwrap().starts_with("its 1 s are over"), "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_watched_from_where_it_is_told() {
    let desk = Desk::new().await;
    desk.publish(0..3).await;
    let path = format!("/api/topics/{}/rows", desk.world.topic);
    let mut latest = Events::of(desk.http.get(desk.url(&path)).send().await.unwrap()).await;
    let mut offset = Events::of(desk.http.get(desk.url(&format!("{path}?from=offset:2"))).send().await.unwrap()).await;
    desk.publish(3..4).await;
    let (name, row) = latest.next().await;
    let seen = (name.as_str(), &row["partition"], &row["offset"], &row["format"], &row["value"]);
    assert_eq!(seen, ("row", &json!(0), &json!(3), &json!("json"), &json!({ "N": 3 })));
    assert_eq!(
        (offset.next().await.1["offset"].clone(), offset.next().await.1["offset"].clone()),
        (json!(2), json!(3))
    );
    assert_eq!(readers(&desk.world), 2);
    drop((latest, offset));
    until("nobody reads the topic", PATIENCE, || async { (readers(&desk.world) == 0).then_some(()) }).await;

    let head = desk.http.head(desk.url(&format!("/api/topics/{}/rows", desk.world.dlq_topic))).send().await.unwrap();
    assert_eq!(head.status(), 200, "nobody is asked, and nothing is opened");
    for (path, status, code) in [
        ("/api/topics/__consumer_offsets/rows".to_owned(), 404, "topic_not_watchable"),
        (format!("/api/topics/{}/rows", desk.world.dlq_topic), 404, "topic_not_watchable"),
        (format!("{path}?from=yesterday"), 400, "invalid_parameter"),
    ] {
        let refused = desk.http.get(desk.url(&path)).send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.json::<Value>().await.unwrap()["code"]),
            (status, &json!(code))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_watchers_cost_one_consumer_and_a_client_that_takes_nothing_slows_nobody() {
    let desk = Desk::new().await;
    let mut watchers = Vec::new();
    for _ in 0..200 {
        watchers.push(desk.live.previews.watch(&desk.world.topic, From::Latest, "ada").await.unwrap());
    }
    assert_eq!((readers(&desk.world), desk.live.previews.counts()), (1, (1, 200)));
    // The first hundred take nothing until all is over.
    let mut fast = watchers.split_off(100);
    for round in 0..20 {
        desk.publish(round * 500..(round + 1) * 500).await;
        for watcher in &mut fast {
            assert_eq!(taken(watcher, 500).await, (500, 0), "round {round}");
        }
    }
    for watcher in &mut watchers {
        let (rows, dropped) = taken(watcher, 10_000).await;
        assert_eq!(rows + dropped, 10_000, "what it was not shown was counted");
        assert!(dropped >= 8_000, "a second's worth has waited for it: {dropped}");
    }
    drop((watchers, fast));
    until("nobody reads the topic", PATIENCE, || async { (readers(&desk.world) == 0).then_some(()) }).await;
}

/// Takes until so many were shown or dropped.
async fn taken(watcher: &mut Watcher, most: u64) -> (u64, u64) {
    let (mut rows, mut dropped) = (0, 0);
    while rows + dropped < most {
        match tokio::time::timeout(PATIENCE, watcher.next()).await.expect("rows come") {
            Told::Frame(frame) => {
                rows += frame.rows.len() as u64;
                dropped += frame.dropped;
            }
            Told::End(why) => panic!("{why}"),
        }
    }
    (rows, dropped)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_reads_tens_of_thousands_of_rows_a_second() {
    const COUNT: i64 = 50_000;
    let desk = Desk::new().await;
    desk.publish(0..COUNT).await;
    let limits = PreviewLimits { rows_per_second: 10_000_000, bytes_per_second: u32::MAX, ..PreviewLimits::default() };
    let mut config = Config::defaults().kafka;
    config.bootstrap_servers.clone_from(&desk.world.kafka);
    let previews = Previews::new(Arc::new(Topics::new(&config)), None, Arc::new(desk.manager.clone()), limits);
    let begun = Instant::now();
    let mut watcher = previews.watch(&desk.world.topic, From::Earliest, "ada").await.unwrap();
    assert_eq!(taken(&mut watcher, COUNT as u64).await, (COUNT as u64, 0));
    let per_second = COUNT as f64 / begun.elapsed().as_secs_f64();
    println!("{per_second:.0} rows a second");
    // A debug build on a busy machine.
    assert!(per_second > 5_000.0, "{per_second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_shows_queries_streams_and_topics() {
    let desk = Desk::new().await;
    let (client, mut pushes) = Client::new(ConnectionId("ada".into()));
    let definition =
        NewDefinition { name: "Big".to_owned(), sql_script: "SELECT * FROM orders".to_owned(), engine: None };
    let definition = desk.manager.create(definition, "ada").await.unwrap();
    desk.world.create_topic(&definition.output_topic, 1, &[]).await;
    let deployed = desk.manager.deploy(&definition.id, DeployOptions::default(), Duration::ZERO, "ada").await;
    assert_eq!(deployed.unwrap().revision, 1, "it is planned: nobody runs it here");

    let mut rows =
        desk.live.stream(desk.call(&client, "ExecuteAdHoc", vec![json!("SELECT * FROM orders")])).await.unwrap();
    let header: Value = serde_json::from_str(&rows.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(header["header"]["schema"], "`N` BIGINT");
    let limits = desk.live.invoke(desk.call(&client, "getQueryLimits", vec![])).await.unwrap();
    let expected = json!({
        "userActiveAdHocQueries": 1, "userMaxAdHocQueries": 2, "userActivePersistentQueries": 1, "userMaxPersistentQueries": 5,
        "globalActiveAdHocQueries": 1, "globalMaxAdHocQueries": 20, "globalActivePersistentQueries": 1,
        "globalMaxPersistentQueries": 30, "adHocMaxSeconds": 300, "adHocMaxRows": 1_000_000, "adHocMaxBytes": 256 * 1024 * 1024,
    });
    assert_eq!(limits, expected);
    desk.engine.feed(&Item::End(End::Failed("out of memory".to_owned())));
    assert_eq!(rows.next().await.unwrap().unwrap(), r#"{"end":"failed","errorMessage":{"message":"out of memory"}}"#);
    assert_eq!(rows.next().await, Some(Err("out of memory".to_owned())));
    let refused = desk.live.stream(desk.call(&client, "ExecuteAdHoc", vec![json!("SELECT * FROM secrets")])).await;
    let refused = refused.err().unwrap();
    assert!(refused.starts_with("line 1, column 15: "), "{refused}");

    let mut view = desk.live.stream(desk.call(&client, "ViewStream", vec![json!(definition.id)])).await.unwrap();
    let header = tokio::time::timeout(PATIENCE, view.next()).await.expect("at once, as nothing was published");
    assert_eq!(header.unwrap().unwrap(), r#"{"header":{"schema":"`CUSTOMER` BIGINT, `N` BIGINT"}}"#);
    let of_ada = |payload: Option<&str>| TestRecord {
        key: Some(7_i64.to_be_bytes().to_vec()),
        payload: payload.map(|text| text.as_bytes().to_vec()),
        ..TestRecord::default()
    };
    let topic = json!(definition.output_topic);
    desk.live.invoke(desk.call(&client, "JoinStreamGroup", vec![topic.clone()])).await.unwrap();
    let records = [of_ada(Some(r#"{"N":9007199254740993}"#)), of_ada(None)];
    desk.world.publish_to(&definition.output_topic, records).await;
    let row = r#"{"kind":"updateAfter","row":{"columns":[7,"9007199254740993"]}}"#;
    assert_eq!(view.next().await.unwrap().unwrap(), row);
    let gone = r#"{"kind":"delete","row":{"columns":[7,null],"tombstone":true}}"#;
    assert_eq!(view.next().await.unwrap().unwrap(), gone);
    for expected in
        [r#"{\"CUSTOMER\":7,\"N\":\"9007199254740993\"}"#, r#"{\"key\":{\"CUSTOMER\":7},\"tombstone\":true}"#]
    {
        let push = tokio::time::timeout(PATIENCE, pushes.next()).await.unwrap().unwrap();
        assert!(push.as_str().contains(expected), "{}", push.as_str());
    }
    desk.live.invoke(desk.call(&client, "LeaveStreamGroup", vec![topic])).await.unwrap();
    drop(view);

    let topic = json!(desk.world.topic);
    for _ in 0..2 {
        desk.live.invoke(desk.call(&client, "JoinStreamGroup", vec![topic.clone()])).await.unwrap();
    }
    desk.publish(0..1).await;
    let push = tokio::time::timeout(PATIENCE, pushes.next()).await.unwrap().unwrap();
    assert!(push.as_str().contains(r#"{\"N\":0}"#) && push.as_str().contains("ReceiveMessage"), "{}", push.as_str());
    desk.live.invoke(desk.call(&client, "LeaveStreamGroup", vec![topic.clone()])).await.unwrap();
    until("nobody reads the topic", PATIENCE, || async { (readers(&desk.world) == 0).then_some(()) }).await;
    assert!(pushes.now().is_none(), "it was joined twice and sent once");
    desk.live.invoke(desk.call(&client, "JoinStreamGroup", vec![topic])).await.unwrap();
    until("its thread has a name", PATIENCE, || async { (readers(&desk.world) == 1).then_some(()) }).await;
    desk.live.left(&client);
    until("nobody reads the topic", PATIENCE, || async { (readers(&desk.world) == 0).then_some(()) }).await;
}
