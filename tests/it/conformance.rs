//! What every view gets from the engine, whatever it shows: run for each registered view and for one that the engine
//! has never seen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use streamview::app::{self, Only, Served};
use streamview::config::{Config, History, ViewSettings};
use streamview::registrations::{self, Registration};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::counter;
use crate::support::orders::life;
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// A view under test: its registry line, its events, and how its rows read.
struct Subject {
    registration: Registration,
    /// Events 1, 2, 3 … of a key.
    events: fn(&str, i64) -> Vec<TestRecord>,
    /// Key, sequence and a digest of the row, as text, of the build of that number.
    rows: fn(i64) -> String,
}

fn subjects() -> Vec<Subject> {
    let mut subjects: Vec<Subject> =
        registrations::all().into_iter().map(|registration| subject_of(&registration)).collect();
    subjects.push(Subject {
        registration: counter::registration("counter"),
        events: counted,
        rows: |build| format!("select key, last_sequence, count::text from counter_{build}.counts"),
    });
    subjects
}

/// A newly registered view needs its events here, or this fails.
fn subject_of(registration: &Registration) -> Subject {
    match registration.name {
        "orders" => Subject {
            registration: registration.clone(),
            events: |key, count| life(key, count).iter().map(|event| event.record()).collect(),
            rows: |build| {
                format!(
                    "select order_id, last_event_sequence, item_count || ' ' || total_gross from orders_{build}.orders"
                )
            },
        },
        other => panic!("the conformance suite has no events for view {other}"),
    }
}

pub fn counted(key: &str, count: i64) -> Vec<TestRecord> {
    (1..=count)
        .map(|sequence| TestRecord {
            key: Some(key.as_bytes().to_vec()),
            payload: Some(format!("\"{key}-{sequence}\"").into_bytes()),
            headers: vec![("x-sequence".to_owned(), sequence.to_string().into_bytes())],
            partition: None,
        })
        .collect()
}

/// The service in this process, with one view.
pub struct Service {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    pub async fn start(world: &World, registration: Registration) -> Service {
        Service::start_views(world, vec![(registration, world.view_settings())]).await
    }

    async fn start_views(world: &World, views: Vec<Served>) -> Service {
        let mut environment = world.environment();
        environment.push(("STREAMVIEW_HTTP__BIND".to_owned(), "127.0.0.1:0".to_owned()));
        let config = Arc::new(Config::load(None, environment, &[]).unwrap());
        // As `streamview migrate` does: the first build of each view that has none.
        app::migrate(&config, &views).await.unwrap();
        let stop = CancellationToken::new();
        let (ready, addresses) = oneshot::channel();
        let task = tokio::spawn(app::serve(config, views, Only::Both, stop.clone(), Some(ready)));
        let address = addresses.await.unwrap()[0];
        streamview::schemas::client::install_tls();
        Service { address, stop, task }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    pub async fn json(&self, path: &str) -> Value {
        reqwest::get(format!("http://{}{path}", self.address)).await.unwrap().json().await.unwrap()
    }

    /// A POST that must be accepted.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let request = reqwest::Client::new().post(format!("http://{}{path}", self.address)).json(body);
        let response = request.send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        assert_eq!(status, 202, "POST {path} {body}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the operation is as `is_so` says.
    pub async fn until_operation(&self, id: &Value, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(&format!("operation {id} is {what}"), PATIENCE, || async {
            let operation = self.json(&format!("/ops/operations/{id}")).await;
            is_so(&operation).then_some(operation)
        })
        .await
    }

    /// Waits until the operation is done.
    pub async fn until_done(&self, id: &Value) -> Value {
        let over = self.until_operation(id, "over", |operation| operation["state"] != "running").await;
        assert_eq!(over["state"], "done", "{over}");
        over
    }
}

async fn rows(world: &World, subject: &Subject) -> BTreeMap<String, (i64, String)> {
    rows_of(world, subject, 1).await
}

async fn rows_of(world: &World, subject: &Subject, build: i64) -> BTreeMap<String, (i64, String)> {
    let rows = world.sql.query(&(subject.rows)(build), &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

/// In-order events give the reference; the same events doubled, reordered, with poison and a restart give the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_view_converges_and_accounts_for_every_record() {
    for subject in subjects() {
        let keys: Vec<String> = (0..5).map(|n| format!("key-{n}")).collect();
        let orderly = World::new(2).await;
        let service = Service::start(&orderly, subject.registration.clone()).await;
        orderly.publish(keys.iter().flat_map(|key| (subject.events)(key, 4))).await;
        orderly.until_consumed(20).await;
        service.stop().await;
        let expected = rows(&orderly, &subject).await;
        assert_eq!(expected.len(), 5);
        assert!(expected.values().all(|(sequence, _)| *sequence == 4), "{expected:?}");

        let messy = World::new(2).await;
        let service = Service::start(&messy, subject.registration.clone()).await;
        let poison = TestRecord {
            key: Some(b"broken".to_vec()),
            payload: Some(b"{".to_vec()),
            headers: vec![("x-sequence".to_owned(), b"1".to_vec())],
            partition: None,
        };
        let mut first: Vec<TestRecord> = keys.iter().flat_map(|key| (subject.events)(key, 4)).collect();
        first.reverse();
        messy.publish(first.iter().cloned().chain([poison])).await;
        messy.until_consumed(21).await;
        service.stop().await;
        let service = Service::start(&messy, subject.registration.clone()).await;
        messy.publish(first).await;
        messy.until_consumed(41).await;

        assert_eq!(rows(&messy, &subject).await, expected);
        let [consumed, applied, duplicate, late, conflict, parked, dead] = messy.conservation().await;
        assert_eq!((consumed, applied, conflict, parked, dead), (41, 20, 0, 0, 1));
        assert_eq!(duplicate + late, 20);

        let name = subject.registration.name;
        let lags = until("the lag is observed as 0", PATIENCE, || async {
            let lags = service.json(&format!("/ops/lags?view={name}")).await;
            (lags["totalLag"] == 0).then_some(lags)
        })
        .await;
        assert_eq!((&lags["view"], lags["partitions"].as_array().unwrap().len()), (&Value::from(name), 2));
        service.stop().await;
    }
}

/// Whatever it shows: a view that passes the test above is rebuilt beside itself, compared, switched to and back, and dropped.
#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_rebuilt_compared_switched_rolled_back_and_dropped() {
    for subject in subjects() {
        let (world, name) = (World::new(2).await, subject.registration.name);
        let service = Service::start(&world, subject.registration.clone()).await;
        let keys: Vec<String> = (0..5).map(|n| format!("key-{n}")).collect();
        let events: Vec<Vec<TestRecord>> = keys.iter().map(|key| (subject.events)(key, 6)).collect();
        let part =
            |from: usize, to: usize| events.iter().flat_map(|of_key| of_key[from..to].to_vec()).collect::<Vec<_>>();
        world.publish(part(0, 4)).await;
        world.until_consumed(20).await;

        let rebuild = |keep_hours: i64| json!({ "view": name, "reason": "to see it done", "keepHours": keep_hours });
        let begun = service.post("/ops/views/rebuild", &rebuild(1)).await;
        let done = service.until_done(&begun["id"]).await;
        assert_eq!((&done["view"], &done["toBuild"]), (&json!(name), &json!(2)), "{done}");
        assert_eq!((&done["comparison"]["compared"], &done["comparison"]["equal"]), (&json!(5), &json!(5)), "{done}");
        assert_eq!(rows_of(&world, &subject, 2).await, rows_of(&world, &subject, 1).await, "{name}");

        // Both are fed, so that going back shows what came since.
        world.publish(part(4, 6)).await;
        world.until_consumed(60).await;
        let back = service.post(&format!("/ops/views/{name}/rollback"), &json!({ "reason": "to see it undone" })).await;
        assert_eq!(service.until_done(&back["id"]).await["toBuild"], 1);
        let (one, two) = (rows_of(&world, &subject, 1).await, rows_of(&world, &subject, 2).await);
        assert!(one == two && one.len() == 5 && one.values().all(|(sequence, _)| *sequence == 6), "{one:?} {two:?}");

        // Another one, and what was there before goes.
        let begun = service.post("/ops/views/rebuild", &rebuild(0)).await;
        let done = service.until_done(&begun["id"]).await;
        assert_eq!((&done["toBuild"], &done["comparison"]["equal"]), (&json!(3), &json!(5)), "{done}");
        world.sql.batch_execute("update view_builds set kept_until = now() where not active").await.unwrap();
        let schemas = format!("select count(*) from pg_namespace where nspname ~ '^{name}_[0-9]+$'");
        until("the other builds are dropped", PATIENCE, || async { (world.number(&schemas).await == 1).then_some(()) })
            .await;
        assert_eq!(rows_of(&world, &subject, 3).await, one, "{name}");
        service.stop().await;
    }
}

/// Nothing is known by its type: two views of one type, each with its name, topic, tables, progress and rules.
#[tokio::test(flavor = "multi_thread")]
async fn two_views_of_one_type_live_side_by_side_under_their_own_names() {
    let world = World::new(2).await;
    let second = format!("{}.second", world.topic);
    world.create_topic(&second, 3, &[]).await;
    let taps = ViewSettings { topic: second.clone(), history: Some(History::Off), ..world.view_settings() };
    let views = vec![(counter::registration("clicks"), world.view_settings()), (counter::registration("taps"), taps)];
    let service = Service::start_views(&world, views).await;
    // The same keys and event ids on both topics, more of them on the second.
    world.publish(counted("a", 3)).await;
    world.publish_to(&second, counted("a", 5).into_iter().chain(counted("b", 1))).await;

    let counts = |name: &'static str| {
        let query = format!(
            "select key || ' ' || count || ' ' || (select count(*) from {name}_1.ledger l where l.key = c.key) \
             from {name}_1.counts c order by key"
        );
        let world = &world;
        async move {
            let rows = world.sql.query(&query, &[]).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
        }
    };
    until("the first view has counted", PATIENCE, || async { (counts("clicks").await == ["a 3 3"]).then_some(()) })
        .await;
    let expected = ["a 5 0", "b 1 0"];
    until("the second view has counted", PATIENCE, || async { (counts("taps").await == expected).then_some(()) }).await;
    for (name, topic, partitions) in [("clicks", &world.topic, 2), ("taps", &second, 3)] {
        let lags = until("the lag is observed as 0", PATIENCE, || async {
            let lags = service.json(&format!("/ops/lags?view={name}")).await;
            (lags["totalLag"] == 0 && lags["state"] == "running").then_some(lags)
        })
        .await;
        let shown = lags["partitions"].as_array().unwrap();
        assert_eq!((&lags["view"], shown.len()), (&Value::from(name), partitions));
        assert!(shown.iter().all(|partition| partition["topic"] == **topic), "{lags}");
    }
    let metrics = reqwest::get(format!("http://{}/metrics", service.address)).await.unwrap().text().await.unwrap();
    for series in [
        r#"streamview_events_total{type="Counted",view="clicks"} 3"#,
        r#"streamview_events_total{type="Counted",view="taps"} 6"#,
    ] {
        assert!(metrics.contains(series), "{series} is not among\n{metrics}");
    }
    service.stop().await;
}
