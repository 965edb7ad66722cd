//! The stream manager from outside: a service with `manager.enabled`, its Postgres, a real Kafka, and ksqlDB's stand-in.

use std::collections::BTreeMap;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use streamview::config::Config;
use streamview::manager::ports::Kafka;
use streamview::platforms::kafka::topics::Topics;
use streamview_lab::ksqldb_stand_in::{KsqldbStandIn, Options, run_if_asked};

use crate::access::make_key;
use crate::support::instance::Instance;
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// Not a test by itself: the process that the others start as ksqlDB.
#[test]
fn ksqldb_stand_in_process() {
    run_if_asked().unwrap();
}

pub const BIG: &str = "SELECT ORDER_ID, AMOUNT FROM orders WHERE AMOUNT > 500";
pub const BIGGER: &str = "SELECT ORDER_ID, AMOUNT FROM orders WHERE AMOUNT > 1000";

/// A world with an engine, and a topic with orders.
pub struct Stage {
    pub world: World,
    pub ksqldb: KsqldbStandIn,
    pub orders: String,
}

impl Stage {
    pub async fn new() -> Stage {
        let world = World::new(1).await;
        let options = Options {
            bootstrap_servers: world.kafka.clone(),
            service_id: format!("{}_", world.group.replace('.', "_")),
            ..Options::default()
        };
        let arguments = ["--exact", "streams::ksqldb_stand_in_process", "--nocapture"];
        let ksqldb = KsqldbStandIn::start(options, &arguments).unwrap();
        let orders = world.group.replace(".group", "_orders");
        world.create_topic(&orders, 1, &[]).await;
        Stage { world, ksqldb, orders }
    }

    pub async fn start(&self, settings: &[(&str, &str)]) -> Service<'_> {
        let url = self.ksqldb.url();
        let own = [
            ("STREAMVIEW_MANAGER__ENABLED", "true"),
            ("STREAMVIEW_MANAGER__RECONCILE_INTERVAL_MS", "200"),
            ("STREAMVIEW_KSQLDB__URL", url.as_str()),
        ];
        let instance = self.world.start_with(&[&own[..], settings].concat()).await;
        Service { stage: self, instance, key: None }
    }

    /// With a source that everybody selects from.
    pub async fn start_with_orders(&self) -> Service<'_> {
        let service = self.start(&[]).await;
        service.declare_orders().await;
        service
    }

    /// How many records a topic has; `None` if there is no such topic.
    pub async fn records(&self, topic: &str) -> Option<i64> {
        let pairs = self.world.environment();
        let topics = Topics::new(&Config::load(None, pairs, &[]).unwrap().kafka);
        let is_there = topics.topics().await.unwrap().iter().any(|known| known.name == topic);
        if !is_there {
            return None;
        }
        Some(topics.watermarks(topic).await.unwrap().iter().map(|(first, next)| next - first).sum())
    }

    pub async fn publish(&self, orders: &[(i64, &str)]) {
        let record = |(id, amount): &(i64, &str)| TestRecord {
            payload: Some(format!(r#"{{"ORDER_ID": {id}, "AMOUNT": {amount}}}"#).into_bytes()),
            ..TestRecord::default()
        };
        self.world.publish_to(&self.orders, orders.iter().map(record)).await;
    }
}

/// A running service, and who calls it.
pub struct Service<'s> {
    pub stage: &'s Stage,
    pub instance: Instance,
    pub key: Option<String>,
}

/// What came of a call.
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

impl Answer {
    async fn of(response: Response) -> Answer {
        let status = response.status().as_u16();
        let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
            (name.to_string(), value.to_str().unwrap_or_default().to_owned())
        };
        let headers = response.headers().iter().map(header).collect();
        Answer { status, headers, body: response.json().await.unwrap_or_default() }
    }

    pub fn must(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Service<'_> {
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.instance.http.request(method, self.instance.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None, &[]).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body), &[]).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(body), &[]).await
    }

    pub async fn declare_orders(&self) {
        let columns = json!([{ "name": "ORDER_ID", "type": "bigint" }, { "name": "AMOUNT", "type": "double" }]);
        let body = json!({ "topic": self.stage.orders, "format": "json", "columns": columns });
        self.put("/api/catalog/orders", body).await.must(200);
    }

    /// A stream of that name and text; its path.
    pub async fn create(&self, name: &str, sql: &str) -> String {
        let made = self.post("/api/streams", json!({ "name": name, "sqlScript": sql })).await.must(201);
        made.headers["location"].clone()
    }

    /// A stream that is seen to run; its path.
    pub async fn running(&self, name: &str, sql: &str) -> String {
        let path = self.create(name, sql).await;
        let deployed = self.call("POST", &format!("{path}/deploy"), None, &[]).await;
        assert!(matches!(deployed.status, 200 | 202), "{}", deployed.body);
        self.until_state(&path, "running").await;
        path
    }

    pub async fn until(&self, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(what, PATIENCE, || async {
            let stream = self.get(path).await.body;
            is_so(&stream).then_some(stream)
        })
        .await
    }

    pub async fn until_state(&self, path: &str, state: &str) -> Value {
        self.until(path, &format!("{path} is {state}"), |stream| {
            stream["state"] == state && stream["isSettled"] == true
        })
        .await
    }

    pub async fn until_records(&self, topic: &str, records: i64) {
        until(&format!("{topic} has {records} records"), PATIENCE, || async {
            (self.stage.records(topic).await == Some(records)).then_some(())
        })
        .await;
    }
}

/// A declaration of `customers`, which is this table.
fn table(of: Value) -> Value {
    json!({
        "topic": "customers", "format": "json", "columns": [{ "name": "id", "type": "string" }, { "name": "city", "type": "string" }],
        "table": of,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_declared_as_a_table_and_as_a_stream_again() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let shown = async || {
        let catalog = service.get("/api/catalog").await.must(200).body;
        let items = catalog["items"].as_array().unwrap().clone();
        items.into_iter().find(|item| item["name"] == "customers").unwrap()
    };
    let of = json!({ "key": ["id"], "keyFormat": "text" });
    let put = service.put("/api/catalog/customers", table(of.clone())).await.must(200).body;
    assert_eq!((&put["table"], &shown().await["table"]), (&of, &of));
    let mut plain = table(json!(null));
    plain.as_object_mut().unwrap().remove("table");
    service.put("/api/catalog/customers", plain).await.must(200);
    assert_eq!(shown().await.get("table"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_defined_deployed_watched_changed_stopped_and_deleted_over_http() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let catalog = service.get("/api/catalog").await.must(200).body;
    assert_eq!(catalog["items"][0]["name"], "orders", "{catalog}");
    let engines = service.get("/api/engines").await.must(200).body;
    assert_eq!(engines["items"].as_array().unwrap().len(), 1, "what is not configured is not listed: {engines}");
    assert_eq!((&engines["items"][0]["engine"], &engines["items"][0]["isReachable"]), (&json!("ksqldb"), &json!(true)));

    let statement = json!({ "engine": "ksqldb", "kind": "persistent", "sqlScript": BIG });
    let valid = service.post("/api/validate", statement.clone()).await.must(200).body;
    assert_eq!((&valid["valid"], &valid["checkedBy"]), (&json!(true), &json!("gate")), "{valid}");
    assert!(valid["engineTrouble"].as_str().unwrap().contains("ksqlDB has no `orders` yet"), "{valid}");

    let new = json!({ "name": "HighValueOrders", "sqlScript": BIG, "engine": "ksqldb" });
    let made = service.post("/api/streams", new).await.must(201);
    let (path, stream) = (made.headers["location"].clone(), made.body);
    assert_eq!(
        (&stream["wanted"], &stream["isActive"], &stream["jobId"]),
        (&json!("draft"), &json!(false), &json!(null))
    );
    assert_eq!(stream["owner"], "anonymous");
    let topic = stream["outputTopic"].as_str().unwrap().to_owned();
    let plan = service.post(&format!("{path}/plan"), json!({})).await.must(200).body;
    assert_eq!(plan["effect"], "starts", "{plan}");

    service.call("POST", &format!("{path}/deploy"), None, &[]).await;
    let runs = service.until_state(&path, "running").await;
    assert!(runs["jobId"].is_string() && runs["isActive"] == true, "{runs}");
    let valid = service.post("/api/validate", statement).await.must(200).body;
    assert_eq!((&valid["valid"], &valid["checkedBy"]), (&json!(true), &json!("engine")), "{valid}");
    stage.publish(&[(1, "600.5"), (2, "3"), (3, "2000")]).await;
    service.until_records(&topic, 2).await;
    let status = service.get(&format!("{path}/status")).await.must(200).body;
    assert_eq!((&status["stream"]["id"], &status["engineTrouble"]), (&stream["id"], &json!(null)), "{status}");
    service.get(&format!("{path}/topology")).await.must(200);

    let listed = service.get("/api/stream?state=running&name=highvalue").await.must(200).body;
    assert_eq!(listed["items"][0]["id"], stream["id"], "the alias is the same: {listed}");

    let changed = service.put(&path, json!({ "sqlScript": BIGGER, "acceptStateLoss": true })).await;
    assert!(matches!(changed.status, 200 | 202), "{}", changed.body);
    let changed = service
        .until(&path, "the new text runs", |stream| stream["deployedRevision"] == 2 && stream["state"] == "running")
        .await;
    assert_eq!((&changed["outputTopic"], &changed["revision"]), (&json!(topic), &json!(2)));
    let revisions = service.get(&format!("{path}/revisions")).await.must(200).body;
    let texts: Vec<&str> =
        revisions["items"].as_array().unwrap().iter().map(|r| r["sqlScript"].as_str().unwrap()).collect();
    assert_eq!(texts, [BIGGER, BIG]);
    let between = service.get(&format!("{path}/revisions?diff=1..2")).await.must(200).body;
    let diff = between["diff"].as_str().unwrap();
    assert!(diff.starts_with("--- revision 1\n+++ revision 2\n") && diff.contains(&format!("\n+{BIGGER}\n")), "{diff}");
    assert_eq!(between["items"].as_array().unwrap().len(), 2);
    let page = service.get(&format!("{path}/revisions?pageSize=1")).await.must(200);
    assert_eq!((page.body["items"].as_array().unwrap().len(), &page.body["items"][0]["revision"]), (1, &json!(2)));
    let link = page.headers["link"].split(", ").find(|link| link.ends_with("rel=\"next\"")).unwrap().to_owned();
    let last = service.get(&link[1..link.find('>').unwrap()]).await.must(200);
    assert_eq!((&last.body["items"][0]["revision"], last.headers["link"].contains("next")), (&json!(1), false));
    for wrong in ["1..3", "1..", "1-2", "01..2"] {
        let refused = service.get(&format!("{path}/revisions?diff={wrong}")).await.must(400).body;
        assert_eq!(refused["code"], "invalid_parameter", "{refused}");
    }

    service.call("POST", &format!("{path}/stop"), None, &[]).await;
    let stopped = service
        .until(&path, "it has stopped", |stream| stream["isSettled"] == true && stream["wanted"] == "stopped")
        .await;
    assert_eq!(stopped["isActive"], false, "{stopped}");
    let events = service.get(&format!("{path}/events?pageSize=1")).await.must(200);
    assert_eq!(events.body["items"].as_array().unwrap().len(), 1);
    assert!(events.headers["link"].contains("rel=\"next\""), "{:?}", events.headers);

    let deleted = service.call("DELETE", &path, None, &[]).await;
    assert!(matches!(deleted.status, 200 | 202), "{}", deleted.body);
    assert!(deleted.body["leaves"].to_string().contains(&topic), "it says what it leaves: {}", deleted.body);
    until("it is gone", PATIENCE, || async { (service.get(&path).await.status == 404).then_some(()) }).await;
    assert_eq!(service.get(&path).await.code(), "stream_not_found");
    assert!(stage.records(&topic).await.is_some(), "its topic stays");
    let taken_back = service.call("DELETE", "/api/catalog/orders", None, &[]).await.must(200).body;
    assert!(taken_back["leaves"][1].as_str().unwrap().contains("`orders` in ksqldb"), "{taken_back}");
    service.instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_now_can_be_asked_for_and_the_answer_ends() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let path = service.running("Counts", "SELECT ORDER_ID, COUNT(*) AS N FROM orders GROUP BY ORDER_ID").await;
    let stream = service.get(&path).await.must(200).body;
    stage.publish(&[(1, "600"), (1, "3"), (2, "700")]).await;
    service.until_records(stream["outputTopic"].as_str().unwrap(), 3).await;

    let text = format!("SELECT * FROM {} WHERE ORDER_ID = 1", stream["streamName"].as_str().unwrap());
    let is_known = || async {
        let body = json!({ "kind": "adhoc", "sqlScript": text, "pull": true });
        let judged = service.post("/api/validate", body).await.must(200).body;
        (judged["valid"] == true && judged["checkedBy"] == "engine").then_some(judged)
    };
    let judged = until("the table is in the catalog", PATIENCE, is_known).await;
    assert!(!judged["normalized"].as_str().unwrap().contains("EMIT"), "{judged}");
    let rows = service.post("/api/test/query", json!({ "query": text, "pull": true })).await.must(200).body;
    assert_eq!(
        (&rows["end"], &rows["rows"]),
        (&json!("complete"), &json!([{ "row": { "columns": [1, 2] } }])),
        "{rows}"
    );

    let query = json!({ "sqlScript": text, "pull": true });
    let begun = service.post("/api/queries", query).await.must(201);
    let told = service.instance.http.get(service.instance.url(&begun.headers["location"])).send().await.unwrap();
    let told = told.text().await.unwrap();
    assert!(told.contains("[1,2]") && told.contains("complete"), "it ends by itself: {told}");
    let both = json!({ "kind": "persistent", "sqlScript": text, "pull": true });
    let refused = service.post("/api/validate", both).await.must(400);
    assert_eq!(refused.body["errors"][0]["parameter"], "pull", "{}", refused.body);
    service.instance.stop().await;
}

/// Begins a query, and reads it for as long as the answer is held: nobody's ends by itself.
async fn begin(service: &Service<'_>) -> Result<(Value, Response), Answer> {
    let begun = service.post("/api/queries", json!({ "sqlScript": "SELECT * FROM orders" })).await;
    if begun.status != 201 {
        return Err(begun);
    }
    let rows = service.instance.http.get(service.instance.url(&begun.headers["location"])).send().await.unwrap();
    assert_eq!(rows.status(), 200);
    Ok((begun.body, rows))
}

/// As many run already as one user may have.
async fn is_full(service: &Service<'_>) {
    let refused = begin(service).await.expect_err("as many run as may").must(429).body;
    assert_eq!(
        (&refused["code"], &refused["setting"], &refused["inUse"]),
        (&json!("query_limit_reached"), &json!("manager.limits.queries_per_user"), &json!(2)),
        "{refused}"
    );
}

/// Waits until an instance has heard that so many run, on all.
async fn until_queries(service: &Service<'_>, number: usize) -> Vec<Value> {
    until(&format!("{number} queries are listed"), PATIENCE, || async {
        let list = service.get("/api/queries").await.must(200).body["items"].as_array().unwrap().clone();
        (list.len() == number).then_some(list)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_counted_over_all_instances_and_each_says_where_it_runs() {
    let stage = Stage::new().await;
    let one = stage.start_with_orders().await;
    let other = stage.start(&[("STREAMVIEW_KAFKA__INSTANCE_ID", "the-other")]).await;
    let (first, _first_rows) = begin(&one).await.ok().unwrap();
    let (second, second_rows) = begin(&other).await.ok().unwrap();
    assert!(second["instance"].as_str().unwrap().starts_with("the-other-"), "{second}");
    assert_ne!(first["instance"], second["instance"]);
    for (service, query) in [(&one, &first), (&other, &second)] {
        let list = service.get("/api/queries").await.must(200).body;
        let told: Vec<(&Value, &Value)> =
            list["items"].as_array().unwrap().iter().map(|item| (&item["id"], &item["instance"])).collect();
        assert_eq!(told, [(&first["id"], &first["instance"]), (&second["id"], &second["instance"])]);
        assert_eq!((&list["instance"], &list["missing"]), (&query["instance"], &json!([])));
    }

    // One of them elsewhere is neither read nor ended here, and nobody has to guess where it is.
    let path = format!("/api/queries/{}", first["id"].as_str().unwrap());
    for (method, target) in [("GET", format!("{path}/rows")), ("DELETE", path.clone())] {
        let told = other.call(method, &target, None, &[]).await;
        assert_eq!((told.status, told.code(), &told.body["instance"]), (421, "query_elsewhere", &first["instance"]));
        assert!(told.body["detail"].as_str().unwrap().contains(first["instance"].as_str().unwrap()), "{}", told.body);
    }
    let nothing = format!("/api/queries/{}", "0".repeat(32));
    assert_eq!(other.call("DELETE", &nothing, None, &[]).await.must(404).code(), "query_not_found");

    // Two of one user are two, wherever they run; what has ended is heard of.
    is_full(&one).await;
    is_full(&other).await;
    one.call("DELETE", &path, None, &[]).await.must(204);
    until_queries(&other, 1).await;
    let (_, _third_rows) = begin(&other).await.ok().unwrap();
    is_full(&one).await;
    drop(second_rows);
    until_queries(&one, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_stops_gives_the_places_of_its_queries_back_and_one_that_dies_does_later() {
    let stage = Stage::new().await;
    let one = stage.start_with_orders().await;
    let other = stage.start(&[]).await;
    let _rows = [begin(&other).await.ok().unwrap().1, begin(&other).await.ok().unwrap().1];
    is_full(&one).await;
    other.instance.stop().await;
    let _first = begin(&one).await.ok().expect("at once");

    let dying = stage.start(&[]).await;
    let _second = begin(&dying).await.ok().unwrap();
    dying.instance.kill_hard();
    dying.instance.until_ended().await;
    let tell = "update stream_queries set told_at = now() - make_interval(secs => $1::double precision)";
    stage.world.sql.execute(tell, &[&0_f64]).await.unwrap();
    is_full(&one).await;
    assert_eq!(until_queries(&one, 2).await.len(), 2, "it may be there still");
    stage.world.sql.execute(tell, &[&31_f64]).await.unwrap();
    assert_eq!(until_queries(&one, 1).await.len(), 1, "it is not");
    begin(&one).await.ok().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_call_is_named_and_nothing_is_done() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let path = service.create("One", BIG).await;
    for (method, target, body, status, code, field) in [
        ("POST", "/api/streams", json!({ "name": "Two" }), 400, "invalid_body", "sqlScript"),
        ("POST", "/api/streams", json!({ "sqlScript": BIG }), 400, "invalid_body", "name"),
        ("POST", "/api/streams", json!({ "name": "Two", "sql": BIG }), 400, "invalid_body", "sql"),
        (
            "POST",
            "/api/streams",
            json!({ "name": "Two", "sqlScript": BIG, "engine": "spark" }),
            400,
            "invalid_body",
            "engine",
        ),
        (
            "POST",
            "/api/streams",
            json!({ "name": "Two", "sqlScript": BIG, "engine": "flink" }),
            409,
            "engine_not_configured",
            "",
        ),
        ("POST", "/api/streams", json!({ "name": "oNE", "sqlScript": BIG }), 409, "name_taken", "name"),
        (
            "POST",
            "/api/streams",
            json!({ "name": "Two", "sqlScript": format!("{BIG}; DROP STREAM orders") }),
            422,
            "statement_refused",
            "",
        ),
        (
            "POST",
            "/api/streams",
            json!({ "name": "Two", "sqlScript": "SELECT * FROM nowhere" }),
            422,
            "statement_refused",
            "",
        ),
        ("PUT", path.as_str(), json!({ "sqlScript": "DROP STREAM orders" }), 422, "statement_refused", ""),
        ("PUT", path.as_str(), json!({ "engine": "flink" }), 400, "invalid_body", "engine"),
        ("PUT", path.as_str(), json!({ "owner": "me" }), 400, "invalid_body", "owner"),
        ("POST", "/api/validate", json!({ "kind": "other", "sqlScript": BIG }), 400, "invalid_body", "kind"),
        ("GET", "/api/streams?state=sleeping", json!(null), 400, "invalid_parameter", "state"),
        ("GET", "/api/streams?cursor=AAAA", json!(null), 400, "invalid_cursor", "cursor"),
        ("GET", "/api/streams/00000000-0000-0000-0000-000000000000", json!(null), 404, "stream_not_found", ""),
        ("GET", "/api/catalog?engine=spark", json!(null), 400, "invalid_parameter", "engine"),
        ("PUT", "/api/catalog/customers", table(json!({ "key": ["id"] })), 400, "invalid_body", "table"),
        (
            "PUT",
            "/api/catalog/customers",
            table(json!({ "key": ["nocol"], "keyFormat": "text" })),
            400,
            "invalid_body",
            "table",
        ),
        (
            "PUT",
            "/api/catalog/customers",
            table(json!({ "key": ["id"], "keyFormat": "avro" })),
            400,
            "invalid_body",
            "table",
        ),
        ("DELETE", "/api/catalog/nothing", json!(null), 404, "source_not_found", ""),
        ("DELETE", "/api/orphans/thing/1", json!(null), 400, "invalid_parameter", "kind"),
        ("DELETE", "/api/orphans/topic/view_nothing_00000000", json!(null), 404, "orphan_not_found", ""),
    ] {
        let body = Some(body).filter(|body| !body.is_null());
        let answer = service.call(method, target, body.clone(), &[]).await;
        let told = (
            answer.status,
            answer.code().to_owned(),
            answer.body["errors"][0]["parameter"].as_str().unwrap_or_default().to_owned(),
        );
        assert_eq!(told, (status, code.to_owned(), field.to_owned()), "{method} {target} {body:?}: {}", answer.body);
    }
    for action in ["pause", "resume", "stop"] {
        let answer = service.call("POST", &format!("{path}/{action}"), None, &[]).await;
        assert_eq!((answer.status, answer.code()), (409, "not_possible_now"), "{}", answer.body);
        assert_eq!(answer.body["allowed"], json!(["update", "deploy", "delete"]));
    }
    let refused =
        service.post("/api/streams", json!({ "name": "Two", "sqlScript": "SELECT *\nFROM orders; SELECT 1" })).await;
    let error = &refused.body["statementErrors"][0];
    assert_eq!((&error["line"], &error["column"]), (&json!(2), &json!(14)), "{}", refused.body);
    let listed = service.get("/api/streams").await.body;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["revision"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_what_somebody_else_has_changed_is_refused() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let path = service.create("One", BIG).await;
    let read = service.get(&path).await;
    let etag = read.headers["etag"].clone();
    assert_eq!(service.call("GET", &path, None, &[("If-None-Match", &etag)]).await.status, 304);
    service.call("PUT", &path, Some(json!({ "sqlScript": BIGGER })), &[("If-Match", &etag)]).await.must(200);
    for (method, target) in [("PUT", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/deploy"))] {
        let body = if method == "PUT" { Some(json!({ "name": "Mine" })) } else { None };
        let late = service.call(method, &target, body, &[("If-Match", &etag)]).await;
        assert_eq!(
            (late.status, late.code(), &late.body["currentVersion"]),
            (412, "version_changed", &json!(2)),
            "{}",
            late.body
        );
    }
    let any = service.call("PUT", &path, Some(json!({ "name": "Mine" })), &[("If-Match", "*")]).await.must(200);
    assert_eq!((&any.body["name"], &any.body["sqlScript"]), (&json!("Mine"), &json!(BIGGER)));
    let nonsense = service.call("PUT", &path, Some(json!({ "name": "x" })), &[("If-Match", "yesterday")]).await;
    assert_eq!((nonsense.status, nonsense.code()), (400, "invalid_parameter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_that_somebody_else_has_changed_is_left_as_it_is() {
    let stage = Stage::new().await;
    let service = stage.start(&[]).await;
    let path = "/api/catalog/orders";
    let body = |column: &str| json!({ "topic": stage.orders, "format": "json", "columns": [{ "name": column, "type": "bigint" }] });
    let put = |column: &str, header: &'static str, value: String| {
        let body = body(column);
        let service = &service;
        async move { service.call("PUT", path, Some(body), &[(header, value.as_str())]).await }
    };
    let told = |answer: &Answer| (answer.status, answer.code().to_owned(), answer.body["currentVersion"].clone());
    let changed = |version: Value| (412, "version_changed".to_owned(), version);
    let any = || "*".to_owned();

    // Before anybody has declared it there is nothing to match, and nothing to show.
    assert_eq!(told(&put("A", "If-Match", any()).await), changed(Value::Null));
    assert_eq!(service.get(path).await.must(404).code(), "source_not_found");
    let made = put("A", "If-None-Match", any()).await.must(200);
    assert_eq!(told(&put("B", "If-None-Match", any()).await), changed(made.body["version"].clone()));

    // What was read is known again, under the name in any case; who was slower is told.
    let read = service.get("/api/catalog/ORDERS").await.must(200);
    assert_eq!((&read.body, &read.headers["etag"]), (&made.body, &made.headers["etag"]));
    assert_eq!((&read.body["origin"], &read.body["declaredBy"]), (&json!("declared"), &json!("anonymous")));
    let first = read.headers["etag"].clone();
    assert_eq!(service.call("GET", path, None, &[("If-None-Match", &first)]).await.status, 304);
    let same = put("A", "If-Match", first.clone()).await.must(200);
    assert_eq!(same.headers["etag"], first, "what is declared so already is not declared anew");
    let second = put("B", "If-Match", first.clone()).await.must(200);
    assert_eq!(told(&put("C", "If-Match", first.clone()).await), changed(second.body["version"].clone()));
    let late = service.call("DELETE", path, None, &[("If-Match", &first)]).await;
    assert_eq!(told(&late), changed(second.body["version"].clone()));
    assert_eq!(service.get(path).await.body["columns"][0]["name"], "B");

    // A name that is declared anew is not what was read before, whatever its columns.
    service.call("DELETE", path, None, &[("If-Match", &second.headers["etag"])]).await.must(200);
    assert_eq!(told(&put("A", "If-Match", first.clone()).await), changed(Value::Null));
    let again = service.put(path, body("A")).await.must(200);
    assert_eq!(told(&put("B", "If-Match", first).await), changed(again.body["version"].clone()));
    let nonsense = put("B", "If-Match", "yesterday".to_owned()).await;
    assert_eq!((nonsense.status, nonsense.code()), (400, "invalid_parameter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_that_a_topic_may_have_can_be_declared() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    for format in ["json", "json_schema", "avro"] {
        let path = format!("/api/catalog/as_{format}");
        let columns = json!([{ "name": "ID", "type": "bigint" }]);
        let body = json!({ "topic": stage.orders, "format": format, "columns": columns });
        let answer = service.call("PUT", &path, Some(body), &[]).await;
        assert_eq!((answer.status / 100, &answer.body["format"]), (2, &json!(format)), "{format}: {}", answer.body);
        assert_eq!(service.get(&path).await.body["format"], format);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_change_the_same_declaration_one_is_first() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let etag = service.get("/api/catalog/orders").await.headers["etag"].clone();
    let change = |number: usize| {
        let columns = json!([{ "name": format!("C{number}"), "type": "bigint" }]);
        let body = json!({ "topic": stage.orders, "format": "json", "columns": columns });
        let (service, etag) = (&service, etag.as_str());
        async move { service.call("PUT", "/api/catalog/orders", Some(body), &[("If-Match", etag)]).await.status }
    };
    let mut told = futures_util::future::join_all((0..8).map(change)).await;
    told.sort_unstable();
    assert_eq!(told, [&[200][..], &[412; 7]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_an_idempotency_key_makes_one_stream() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let key = [("Idempotency-Key", "k-1")];
    let new = json!({ "name": "One", "sqlScript": BIG });
    let call = |body: Value| service.call("POST", "/api/streams", Some(body), &key);
    let first = call(new.clone()).await.must(201);
    let again = call(new.clone()).await.must(201);
    assert_eq!((&again.body, &again.headers["location"]), (&first.body, &first.headers["location"]));
    assert_eq!((first.headers.get("idempotent-replayed"), &*again.headers["idempotent-replayed"]), (None, "true"));
    let other = call(json!({ "name": "Two", "sqlScript": BIG })).await;
    assert_eq!((other.status, other.code()), (422, "idempotency_key_reused"));
    // The process ended after the stream was made and before its answer was kept.
    stage.world.sql.batch_execute("delete from idempotent_calls").await.unwrap();
    let found = call(new.clone()).await.must(201);
    assert_eq!((&found.body["id"], &*found.headers["idempotent-replayed"]), (&first.body["id"], "true"));
    // Also under the name as it was asked for, which is stored without its spaces.
    let spaced = || {
        service.call(
            "POST",
            "/api/streams",
            Some(json!({ "name": " Spaced ", "sqlScript": BIG })),
            &[("Idempotency-Key", "k-2")],
        )
    };
    let made = spaced().await.must(201);
    assert_eq!(made.body["name"], "Spaced");
    stage.world.sql.batch_execute("delete from idempotent_calls").await.unwrap();
    let found = spaced().await.must(201);
    assert_eq!((&found.body["id"], &*found.headers["idempotent-replayed"]), (&made.body["id"], "true"));
    // Somebody else's stream of that name is not taken for it.
    stage.world.sql.batch_execute("delete from idempotent_calls").await.unwrap();
    assert_eq!(call(json!({ "name": "One", "sqlScript": BIGGER })).await.code(), "name_taken");
    let all = futures_util::future::join_all((0..5).map(|_| {
        service.call(
            "POST",
            "/api/streams",
            Some(json!({ "name": "Five", "sqlScript": BIG })),
            &[("Idempotency-Key", "k-5")],
        )
    }));
    assert!(all.await.iter().all(|answer| answer.status == 201));
    assert_eq!(service.get("/api/streams").await.body["items"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_streams_neither_skip_nor_repeat_one() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    for number in 0..7 {
        service.create(&format!("S{number}"), BIG).await;
    }
    let (mut names, mut next) = (Vec::new(), Some("/api/streams?pageSize=3".to_owned()));
    while let Some(path) = next {
        let page = service.get(&path).await.must(200);
        names.extend(
            page.body["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        let link = page.headers["link"].split(", ").find(|link| link.ends_with("rel=\"next\"")).map(str::to_owned);
        next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
    }
    assert_eq!(names, ["S6", "S5", "S4", "S3", "S2", "S1", "S0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn developers_run_their_own_streams_operators_everybodys_and_readers_look() {
    let stage = Stage::new().await;
    let mut service = stage.start(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    let mut keys = BTreeMap::new();
    for (name, role) in [("ada", "developer"), ("eve", "developer"), ("ops", "operator"), ("ray", "reader")] {
        let made = std::process::Command::new(env!("CARGO_BIN_EXE_streamview"))
            .args(["apikey", "create", "--name", name, "--role", role])
            .envs(stage.world.environment())
            .output()
            .unwrap();
        keys.insert(name, String::from_utf8(made.stdout).unwrap().trim().to_owned());
    }
    until("the keys let in", PATIENCE, || async {
        let asked = service.instance.http.get(service.instance.url("/api/streams")).bearer_auth(&keys["ray"]);
        (asked.send().await.unwrap().status() == 200).then_some(())
    })
    .await;
    let mut by = async |name: &str, method: &str, path: &str, body: Value| {
        service.key = Some(keys[name].clone());
        let answer = service.call(method, path, Some(body), &[]).await;
        (answer.status, answer.code().to_owned(), answer)
    };
    let columns = json!([{ "name": "ORDER_ID", "type": "bigint" }, { "name": "AMOUNT", "type": "double" }]);
    let declaration = json!({ "topic": stage.orders, "format": "json", "columns": columns });
    for name in ["ray", "ops"] {
        assert_eq!(by(name, "PUT", "/api/catalog/orders", declaration.clone()).await.0, 403, "{name}");
    }
    assert_eq!(by("ada", "PUT", "/api/catalog/orders", declaration).await.0, 200);
    let new = json!({ "name": "One", "sqlScript": BIG });
    for name in ["ray", "ops"] {
        assert_eq!(by(name, "POST", "/api/streams", new.clone()).await.1, "role_missing", "{name}");
    }
    let (status, _, made) = by("ada", "POST", "/api/streams", new).await;
    assert_eq!((status, &made.body["owner"]), (201, &json!("ada")));
    let path = made.headers["location"].clone();
    assert_eq!(by("ray", "GET", &path, json!({})).await.0, 200);
    for (method, target, body) in [
        ("PUT", path.clone(), json!({ "name": "Eve's" })),
        ("DELETE", path.clone(), json!({})),
        ("POST", format!("{path}/deploy"), json!({})),
        ("POST", format!("{path}/stop"), json!({})),
    ] {
        let (status, code, answer) = by("eve", method, &target, body).await;
        assert_eq!(
            (status, code.as_str(), &answer.body["requiredRole"]),
            (403, "role_missing", &json!("operator")),
            "{}",
            answer.body
        );
        assert!(answer.body["detail"].as_str().unwrap().contains("`ada`"), "{}", answer.body);
    }
    assert!(matches!(by("ada", "POST", &format!("{path}/deploy"), json!({})).await.0, 200 | 202));
    assert!(matches!(by("ops", "POST", &format!("{path}/stop"), json!({})).await.0, 200 | 202));
    let (_, admin) = make_key(&stage.world, "admin", &[]).await;
    service.key = Some(admin);
    until("the audit log has the refusal and the stop", PATIENCE, || async {
        let log = service.get("/ops/audit?pageSize=200").await.body.to_string();
        let is_there = log.contains("\"/api/streams/{id}/stop\"") && log.contains("role_missing");
        is_there.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_manager_every_route_says_so() {
    let world = World::new(1).await;
    for (arguments, settings) in [
        (&["serve"][..], vec![]),
        (
            &["serve", "--only", "projector"],
            vec![("STREAMVIEW_MANAGER__ENABLED", "true"), ("STREAMVIEW_KSQLDB__URL", "http://127.0.0.1:1")],
        ),
    ] {
        let instance = world.launch_command(arguments, &settings);
        instance.until_ready().await;
        for path in ["/api/streams", "/api/stream", "/api/streams/1", "/api/engines", "/api/catalog", "/api/orphans"] {
            assert_eq!(instance.refusal(path, 404).await["code"], "manager_not_enabled", "{path}");
        }
        let created = instance.posted("/api/streams", &json!({ "name": "x", "sqlScript": "SELECT 1" }), 404).await;
        assert_eq!(created["code"], "manager_not_enabled");
        instance.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_stops_nothing_and_is_said_to_be() {
    let mut stage = Stage::new().await;
    stage.ksqldb.kill_hard().unwrap();
    let service = stage.start_with_orders().await;
    let statement = json!({ "kind": "persistent", "sqlScript": BIG });
    let valid = service.post("/api/validate", statement).await.must(200).body;
    assert_eq!((&valid["valid"], &valid["checkedBy"]), (&json!(true), &json!("gate")), "{valid}");
    assert!(valid["engineTrouble"].is_string(), "{valid}");
    let wrong = json!({ "kind": "persistent", "sqlScript": "SELECT * FROM nowhere" });
    assert_eq!(service.post("/api/validate", wrong).await.must(200).body["valid"], false);
    let engines = service.get("/api/engines").await.must(200).body;
    assert_eq!(engines["items"][0]["isReachable"], false, "{engines}");
    let ready = until("readyz tells of it", PATIENCE, || async {
        let ready = service.instance.readiness().await;
        (ready["status"] == "degraded").then_some(ready)
    })
    .await;
    assert!(ready["checks"].to_string().contains("engine:ksqldb"), "{ready}");
    service.create("One", BIG).await;
    let calls = service.instance.metric("streamview_engine_calls_total", &["outcome=\"unavailable\""]).await;
    assert!(calls > 0.0);
    service.instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_dies_ends_the_process_by_name() {
    let world = World::new(1).await;
    let settings = [
        ("STREAMVIEW_MANAGER__ENABLED", "true"),
        ("STREAMVIEW_KSQLDB__URL", "http://127.0.0.1:1"),
        ("STREAMVIEW_PANIC_AT", "part.manager"),
    ];
    let instance = world.launch(&settings);
    assert_eq!(instance.until_ended().await.code(), Some(1));
    let log = instance.log_text();
    let last = log.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(last.contains("stream manager") && last.contains("part.manager"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_define_streams_are_counted_for_themselves() {
    let stage = Stage::new().await;
    let service = stage.start(&[("STREAMVIEW_HTTP__RATE_LIMITS__DEFINITIONS", "2")]).await;
    let statement = json!({ "kind": "adhoc", "sqlScript": "SELECT 1" });
    for left in ["r=1", "r=0"] {
        let answer = service.post("/api/validate", statement.clone()).await.must(200);
        assert!(answer.headers["ratelimit"].contains(left), "{:?}", answer.headers);
    }
    let refused = service.post("/api/validate", statement).await.must(429);
    assert_eq!((refused.code(), &refused.body["violated-policies"]), ("rate_limited", &json!(["definitions"])));
    assert!(refused.headers.contains_key("retry-after"));
    service.get("/api/streams").await.must(200);
}
