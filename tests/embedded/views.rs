//! Streams joined with the orders view: a real Kafka, a real Postgres, and the whole service between them.

use std::future::{Ready, pending, ready};
use std::time::Duration;

use rdkafka::Message;
use serde_json::{Value, json};
use streamview::app;
use streamview::config::{Config, SecretUrl};
use streamview::embedded::log::LogError;
use streamview::embedded::views::{Part, Views};
use streamview::store::pool;
use streamview::store::whole_view::{self, Wanted, Whole};
use streamview::streams::engines::Joined;
use streamview::streams::engines::views::ServedViews;
use streamview::views::orders::TABLES;
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;

use crate::bench::values;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, status_changed};
use crate::support::world::{TestRecord, World, connect, records};
use crate::support::{PATIENCE, until};

const JOIN: &str = "SELECT p.id, o.status, o.customer_id, o.total_gross, o.item_count FROM payments p \
                    LEFT JOIN orders o ON p.order_id = o.order_id";

/// A service whose engine looks at its tables ten times a second, and topic `payments` of a world.
struct Scene {
    world: World,
    instance: Instance,
    payments: String,
}

impl Scene {
    async fn new(settings: &[(&str, &str)]) -> Scene {
        let world = World::new(2).await;
        let payments = format!("{}.payments", world.topic);
        world.create_topic(&payments, 1, &[]).await;
        let own = [
            ("STREAMVIEW_MANAGER__ENABLED", "true"),
            ("STREAMVIEW_MANAGER__RECONCILE_INTERVAL_MS", "200"),
            ("STREAMVIEW_EMBEDDED__COMMIT_MS", "20"),
            ("STREAMVIEW_EMBEDDED__TABLE_REFRESH_MS", "100"),
        ];
        let instance = world.start_with(&[&own, settings].concat()).await;
        let scene = Scene { world, instance, payments };
        scene.declare("payments", "id").await;
        scene
    }

    /// Topic `payments` as a source of that name.
    async fn declare(&self, name: &str, id: &str) {
        let columns = json!([{ "name": id, "type": "bigint" }, { "name": "order_id", "type": "string" }]);
        let source = json!({ "topic": self.payments, "format": "json", "columns": columns });
        let put = self.instance.http.put(self.instance.url(&format!("/api/catalog/{name}"))).json(&source);
        let put = put.send().await.unwrap();
        assert_eq!(put.status(), 200, "{}", put.text().await.unwrap());
    }

    async fn happened(&self, events: &[TestEvent]) {
        self.world.publish(events.iter().map(TestEvent::record)).await;
        for event in events {
            self.instance.order_at(&event.order_id, event.sequence).await;
        }
    }

    async fn pay(&self, id: i64, order_id: Option<&str>) {
        let payload = json!({ "id": id, "order_id": order_id }).to_string();
        self.world
            .publish_to(&self.payments, [TestRecord { payload: Some(payload.into_bytes()), ..TestRecord::default() }])
            .await;
    }

    /// Deploys a stream; gives its address and the topic that it writes.
    async fn deployed(&self, sql: &str) -> (String, String) {
        let made = self.instance.posted("/api/streams", &json!({ "name": "joined", "sqlScript": sql }), 201).await;
        let [path, topic] = ["href", "outputTopic"].map(|name| made[name].as_str().unwrap().to_owned());
        let answer = self.instance.post(&format!("{path}/deploy"), &json!({})).await;
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        (path, topic)
    }

    async fn written(&self, topic: &str, rows: usize) -> Vec<Value> {
        until(&format!("{rows} rows are written"), PATIENCE * 2, || async {
            Some(tokio::task::block_in_place(|| values(&self.world, topic))).filter(|values| values.len() >= rows)
        })
        .await
    }

    /// Pays again and again for an order until what is written of it is so.
    async fn until_met(&self, topic: &str, order_id: &str, is_so: impl Fn(&Value) -> bool) {
        until(&format!("{order_id} is met as it is now"), PATIENCE * 2, || async {
            let before = tokio::task::block_in_place(|| values(&self.world, topic)).len();
            self.pay(7, Some(order_id)).await;
            self.written(topic, before + 1).await.last().is_some_and(&is_so).then_some(())
        })
        .await;
    }

    async fn operation(&self, path: &str) {
        let begun = self.instance.posted(path, &json!({ "reason": "another build" }), 202).await;
        let path = format!("/ops/operations/{}", begun["id"]);
        until("the operation is done", PATIENCE, || async {
            let operation = self.instance.json(&path).await;
            assert!(["running", "done"].contains(&operation["state"].as_str().unwrap()), "{operation}");
            (operation["state"] == "done").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_joined_with_a_view_that_changes_and_is_another_build_later() {
    let scene = Scene::new(&[]).await;
    // More digits than a double has.
    let large = json!([{ "itemId": "i-1", "sku": "TEA", "qty": 1, "price": "123456789012345678.91", "taxRate": 0 }]);
    scene.happened(&[created("o-1"), created("o-2").with("items", large)]).await;
    scene.pay(1, Some("o-1")).await;
    scene.pay(2, Some("o-2")).await;
    scene.pay(3, Some("nobody's")).await;
    scene.pay(4, None).await;
    let (path, topic) = scene.deployed(JOIN).await;
    scene.written(&topic, 4).await;
    let text =
        |message: &rdkafka::message::OwnedMessage| String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
    let rows: Vec<String> = records(&scene.world.kafka, &topic).iter().map(text).collect();
    let nothing = r#""status":null,"customer_id":null,"total_gross":null,"item_count":null}"#;
    assert_eq!(
        rows,
        [
            r#"{"id":1,"status":"Created","customer_id":"customer-of-o-1","total_gross":9.3100,"item_count":1}"#.to_owned(),
            r#"{"id":2,"status":"Created","customer_id":"customer-of-o-2","total_gross":123456789012345678.9100,"item_count":1}"#
                .to_owned(),
            format!(r#"{{"id":3,{nothing}"#),
            format!(r#"{{"id":4,{nothing}"#),
        ]
    );

    // Rows of the view change, and new ones come.
    scene.happened(&[status_changed("o-1", 2, "Paid"), created("o-3")]).await;
    scene.until_met(&topic, "o-1", |row| row["status"] == "Paid").await;
    scene.until_met(&topic, "o-3", |row| row["status"] == "Created").await;
    let shown = scene.instance.json(&format!("{path}/topology")).await.to_string();
    assert!(shown.contains("table orders (view): 3 rows, "), "{shown}");

    // Readers are led to another build, and back. Nothing else tells the two apart.
    scene.operation("/ops/views/rebuild").await;
    for build in [1, 2] {
        let of_build = format!("update orders_{build}.orders set customer_id = 'build {build}' where order_id = 'o-2'");
        scene.world.sql.batch_execute(&of_build).await.unwrap();
    }
    scene.happened(&[item_added("o-1", 3)]).await;
    scene.until_met(&topic, "o-2", |row| row["customer_id"] == "build 2").await;
    scene.until_met(&topic, "o-1", |row| row["item_count"] == 2).await;
    scene.operation("/ops/views/orders/rollback").await;
    scene.until_met(&topic, "o-2", |row| row["customer_id"] == "build 1").await;

    // Whoever begins it again meets the view as it is then.
    let stopped = scene.instance.post(&format!("{path}/stop"), &json!({})).await;
    assert!(stopped.status().is_success(), "{}", stopped.text().await.unwrap());
    until("it is stopped", PATIENCE * 2, || async {
        (scene.instance.json(&path).await["isSettled"] == true).then_some(())
    })
    .await;
    scene.happened(&[status_changed("o-1", 4, "Shipped")]).await;
    scene.pay(9, Some("o-1")).await;
    let again = scene.instance.post(&format!("{path}/deploy"), &json!({})).await;
    assert!(again.status().is_success(), "{}", again.text().await.unwrap());
    let is_met = |row: &Value| row["id"] == 9 && row["status"] == "Shipped";
    until("the row of the second run is written", PATIENCE * 2, || async {
        tokio::task::block_in_place(|| values(&scene.world, &topic)).iter().any(is_met).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_larger_than_a_table_may_be_fails_its_query_alone_and_by_name() {
    let scene = Scene::new(&[("STREAMVIEW_EMBEDDED__TABLE_ROWS", "2")]).await;
    scene.happened(&[created("o-1"), created("o-2")]).await;
    scene.pay(1, Some("o-2")).await;
    let look = async |sql: &str| {
        let ask = json!({ "query": sql, "engine": "embedded", "rows": 1 });
        scene.instance.posted("/api/test/query", &ask, 200).await
    };
    let met = look(JOIN).await.to_string();
    assert!(met.contains("customer-of-o-2"), "it is as large as it may be: {met}");
    let (path, topic) = scene.deployed(JOIN).await;
    scene.written(&topic, 1).await;

    scene.happened(&[created("o-3")]).await;
    let why = "limit_exceeded: view `orders` has more than 2 rows (`embedded.table_rows`): raise it";
    until("the deployed query fails", PATIENCE * 2, || async {
        scene.instance.json(&path).await.to_string().contains(why).then_some(())
    })
    .await;
    let failed = look(JOIN).await.to_string();
    assert!(failed.contains(why), "{failed}");
    let other = look("SELECT id FROM payments").await.to_string();
    assert!(!other.contains("limit_exceeded") && other.contains('1'), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_in_the_catalogue_and_what_they_cannot_be_is_refused_by_name() {
    let scene = Scene::new(&[]).await;
    let catalog = async || scene.instance.json("/api/catalog").await;
    let found = catalog().await;
    let view = found["items"].as_array().unwrap().iter().find(|item| item["name"] == "orders").unwrap().clone();
    assert_eq!(
        (&view["origin"], &view["format"], &view["engines"]),
        (&json!("view"), &json!("view"), &json!(["embedded"]))
    );
    assert_eq!((&view["table"], view.get("topic")), (&json!({ "key": ["order_id"], "keyFormat": "text" }), None));

    let judged = async |kind: &str, sql: &str| {
        let ask = json!({ "engine": "embedded", "kind": kind, "sqlScript": sql });
        scene.instance.posted("/api/validate", &ask, 200).await
    };
    for kind in ["persistent", "adhoc"] {
        for (code, line, sql) in [
            ("view_source", 2, "SELECT order_id\nFROM orders"),
            ("view_source", 1, "SELECT a.order_id FROM orders a JOIN orders b ON a.order_id = b.order_id"),
            ("stream_join", 2, "SELECT a.id FROM payments a\nJOIN payments b ON a.id = b.id"),
            ("outer_stream", 1, "SELECT p.id FROM payments p FULL JOIN orders o ON p.order_id = o.order_id"),
            ("join_keys", 1, "SELECT p.id FROM payments p JOIN orders o ON p.order_id = o.customer_id"),
        ] {
            let judgement = judged(kind, sql).await;
            let fault = &judgement["errors"][0];
            assert_eq!((&fault["code"], &fault["line"]), (&json!(code), &json!(line)), "{sql}: {judgement}");
        }
    }
    let plan = judged("persistent", JOIN).await.to_string();
    assert!(plan.contains("Table orders: a view of this service, read whole before the first row"), "{plan}");

    // Nobody declares one, and whatever else has its name is what it was.
    let wrong = json!({ "topic": scene.payments, "format": "view", "columns": [{ "name": "id", "type": "bigint" }] });
    let put = scene.instance.http.put(scene.instance.url("/api/catalog/mine")).json(&wrong).send().await.unwrap();
    assert_eq!(put.status(), 400);
    scene.declare("orders", "order_number").await;
    let hidden = catalog().await["missing"].to_string();
    assert!(hidden.contains("the view `orders` of this service is no source, as topic"), "{hidden}");
    let judgement = judged("persistent", "SELECT p.id FROM payments p JOIN orders o ON p.order_id = o.order_id").await;
    let fault = &judgement["errors"][0];
    assert_eq!(fault["code"], "stream_join", "{judgement}");
    assert!(
        fault["message"].as_str().unwrap().contains("declare the topic under another name to join the view"),
        "{fault}"
    );
}

/// Rows of a world without a service, read as the engine reads them.
struct Table {
    world: World,
    pool: streamview::store::read::ReadPool,
}

impl Table {
    async fn of(rows: i64) -> Table {
        let world = World::new(1).await;
        let mut config = Config::defaults();
        config.database.url = SecretUrl::new(world.database.as_str());
        app::migrate(&config, &app::configured_views(&config).unwrap()).await.unwrap();
        let progress =
            "insert into projection_progress (view, build, topic, partition, next_offset, owner_epoch, owner)
                        values ('orders', 1, 't', 0, 0, 1, null)";
        world.sql.batch_execute(progress).await.unwrap();
        let fill = format!(
            "insert into orders_1.orders
             select case n when 0 then '' else 'o-' || n end, 1, 0, '2026-01-01', 0, n, null, null, null, 'none', 'e' || n, 'e' || n, '{{}}'
             from generate_series(0, {}) n",
            rows - 1
        );
        world.sql.batch_execute(&fill).await.unwrap();
        // However long somebody holds a lock; and whoever has a connection has the only one.
        (config.database.read_timeout_ms, config.database.read_pool_size) = (600_000, 1);
        let pool = pool::read_pool(&config.database).unwrap();
        Table { world, pool }
    }

    /// As the engine of a service has them.
    fn served(&self) -> ServedViews {
        ServedViews::new(Joined { views: vec![("orders", TABLES.rows.unwrap())], pool: self.pool.clone() })
    }

    async fn read<F: Future<Output = bool>>(
        &self,
        seen: Option<&str>,
        take: impl FnMut(Vec<(String, String)>) -> F,
    ) -> Whole {
        let rows = TABLES.rows.unwrap();
        let columns = &["total_gross", "updated_at", "status"];
        let wanted = Wanted { view: "orders", rows: &rows, columns, seen, silent: PATIENCE };
        whole_view::read(&self.pool, wanted, take).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_read_as_it_was_at_one_moment_however_many_pages_it_has() {
    let table = Table::of(5_001).await;
    let other = connect(&table.world.database).await;
    let (mut rows, other) = (Vec::new(), &other);
    let whole = table.read(None, |page| {
        let is_first = rows.is_empty();
        rows.extend(page);
        async move {
            if is_first {
                // What is changed meanwhile is of another moment.
                let change = "update orders_1.orders set total_gross = -1;
                              update projection_progress set commits = commits + 1";
                other.batch_execute(change).await.unwrap();
            }
            true
        }
    });
    let Whole::Read(mark) = whole.await else { panic!("it is read") };
    assert_eq!(rows.len(), 5_001);
    assert!(rows.is_sorted() && rows[0].0.is_empty(), "each once, by its key, the empty one, too");
    for (key, json) in &rows {
        let number = key.strip_prefix("o-").unwrap_or("0");
        let expected =
            format!(r#"{{"total_gross" : {number}, "updated_at" : "2026-01-01T00:00:00+00:00", "status" : null}}"#);
        assert_eq!(*json, expected, "{key}");
    }

    // What has changed meanwhile is told by its mark, once.
    let mut count = 0;
    let all = |page: Vec<(String, String)>| {
        count += page.len();
        ready(true)
    };
    let Whole::Read(later) = table.read(Some(&mark), all).await else { panic!("it has changed") };
    assert_eq!(count, 5_001);
    assert_eq!(table.read(Some(&later), |_| -> Ready<bool> { panic!("nothing has changed") }).await, Whole::Same);
    // Whoever has enough gets no more.
    let mut pages = 0;
    let enough = |_: Vec<(String, String)>| {
        pages += 1;
        ready(false)
    };
    assert_eq!((table.read(None, enough).await, pages), (Whole::Enough, 1));
}

/// Emptying a table is not of a moment: whoever has chosen one before would see it empty, by the mark of when it was full.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_emptied_meanwhile_is_read_by_the_mark_of_when_it_was_empty() {
    let table = Table::of(3).await;
    let other = connect(&table.world.database).await;
    let empty = "begin; truncate orders_1.orders; update projection_progress set commits = commits + 1";
    other.batch_execute(empty).await.unwrap();
    let waits = "select count(*) from pg_locks
                 where not granted and locktype = 'relation' and relation = 'orders_1.orders'::regclass
                   and database = (select oid from pg_database where datname = current_database())";
    let emptied = async {
        until("the reader waits", PATIENCE, || async { (table.world.number(waits).await == 1).then_some(()) }).await;
        other.batch_execute("commit").await.unwrap();
    };
    let none = |_: Vec<(String, String)>| -> Ready<bool> { panic!("it is empty") };
    let (whole, ()) = tokio::join!(table.read(None, none), emptied);
    let Whole::Read(mark) = whole else { panic!("{whole:?}") };
    assert_eq!(table.read(Some(&mark), none).await, Whole::Same);
}

/// What is read to its end: rows, and how it ends.
async fn parts(mut reading: Receiver<Part>) -> (usize, Option<Part>) {
    let (mut rows, mut end) = (0, None);
    while let Some(part) = reading.recv().await {
        match part {
            Part::Rows(page) => rows += page.len(),
            other => end = Some(other),
        }
    }
    (rows, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_no_rows_of_a_view_has_no_connection_for_long() {
    const ROWS: usize = 30_000;
    let table = Table::of(ROWS as i64).await;
    let columns = ["status".to_owned()];
    let is_whole = |(rows, end): (usize, Option<Part>)| rows == ROWS && matches!(end, Some(Part::Whole(_)));
    // Dropped, or never taken: the next one finds the only connection free.
    let views = table.served().within(PATIENCE, PATIENCE);
    let mut dropped = views.read("orders", &columns, None);
    assert_eq!(dropped.recv().await, Some(Part::Begun));
    assert!(matches!(dropped.recv().await, Some(Part::Rows(_))));
    drop(dropped);
    assert!(is_whole(parts(views.read("orders", &columns, None)).await));
    // Twice that and its transaction is ended: longer than a busy machine takes between two parts.
    let views = table.served().within(Duration::from_secs(2), PATIENCE);
    let forgotten = views.read("orders", &columns, None);
    until("it waits for whoever takes it", PATIENCE, || async { (forgotten.len() >= 8).then_some(()) }).await;
    let after = table.served().within(PATIENCE, PATIENCE).read("orders", &columns, None);
    let after = tokio::time::timeout(PATIENCE, parts(after)).await.expect("the connection is free");
    assert!(is_whole(after));
    // Whoever takes it now sees that it is not the view.
    assert!(!is_whole(parts(forgotten).await));

    // Neither does one that takes too long, nor one that asks for what is not there.
    let views = table.served().within(PATIENCE, Duration::ZERO);
    let (_, end) = parts(views.read("orders", &columns, None)).await;
    let why = "view `orders` could not be read within 0 ms".to_owned();
    assert_eq!(end, Some(Part::Failed(LogError::Again(why))));
    let views = table.served();
    let (_, end) = parts(views.read("orders", &["anomalies".to_owned()], None)).await;
    let why = "view `orders` has no column `anomalies`: deploy the query anew".to_owned();
    assert_eq!(end, Some(Part::Failed(LogError::Halt(why))));
    let (_, end) = parts(views.read("parcels", &columns, None)).await;
    assert!(matches!(end, Some(Part::Failed(LogError::Halt(why))) if why.contains("`parcels` is no view")));
}

/// A process that is stopped, or whose machine is gone, closes no connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_says_nothing_any_more_keeps_no_transaction() {
    let table = Table::of(3).await;
    let (rows, silent) = (TABLES.rows.unwrap(), Duration::from_millis(100));
    let wanted = Wanted { view: "orders", rows: &rows, columns: &["status"], seen: None, silent };
    let begun = Notify::new();
    let stopped = whole_view::read(&table.pool, wanted, |_| {
        begun.notify_one();
        pending()
    });
    let in_transaction = "select count(*) from pg_stat_activity
                          where datname = current_database() and state = 'idle in transaction'";
    let ended = async {
        begun.notified().await;
        let is_over = async || (table.world.number(in_transaction).await == 0).then_some(());
        until("the server has ended its transaction", PATIENCE, is_over).await;
    };
    tokio::select! {
        whole = stopped => panic!("{whole:?}"),
        () = ended => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_by_itself_is_waited_for_and_what_does_not_fails_the_query() {
    let table = Table::of(3).await;
    let columns = ["status".to_owned()];
    // In the place of the table something that says what a server in trouble would.
    table.world.sql.batch_execute("alter table orders_1.orders rename to kept").await.unwrap();
    for (code, passes) in
        [("58030", true), ("25P03", true), ("XX000", true), ("40001", true), ("22012", false), ("42501", false)]
    {
        let trouble = format!(
            "create or replace function trouble() returns text language plpgsql as $$
             begin raise exception 'told' using errcode = '{code}'; end $$;
             create or replace view orders_1.orders as select order_id, trouble() as status from orders_1.kept"
        );
        table.world.sql.batch_execute(&trouble).await.unwrap();
        let (_, end) = parts(table.served().read("orders", &columns, None)).await;
        let why = match end {
            Some(Part::Failed(LogError::Again(why))) if passes => why,
            Some(Part::Failed(LogError::Halt(why))) if !passes => why,
            other => panic!("{code}: {other:?}"),
        };
        assert!(why.starts_with("view `orders` cannot be read: told"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_not_all_there_is_not_read() {
    let table = Table::of(3).await;
    let none = |_: Vec<(String, String)>| -> Ready<bool> { panic!("it is not read") };
    let set =
        async |what: &str| table.world.sql.batch_execute(&format!("update view_builds set {what}")).await.unwrap();
    set("loading_since = now()").await;
    assert!(matches!(table.read(None, none).await, Whole::Loading(_)));
    set("loading_since = null, active = false").await;
    assert_eq!(table.read(None, none).await, Whole::NoBuild);
}
