//! The process dies by SIGKILL between any two steps of what the stream manager does, while its engine is well or gone: at the
//! end what is wanted is what runs, and nothing is left that is not listed. The engine is the stand-in for ksqlDB, a process
//! of its own on a real Kafka.

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use streamview_lab::ksqldb_stand_in::{KsqldbStandIn, Options, Switches, run_if_asked};

use crate::support::instance::Instance;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Is the stand-in, when this binary is started for that; else nothing.
#[test]
fn stand_in_process() {
    run_if_asked().unwrap();
}

/// What is under way when it dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Deploy,
    Update,
    Stop,
    Delete,
}

/// What is wrong with the engine.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Weather {
    Fine,
    /// It is gone when the next process comes.
    Gone,
    /// It answers late.
    Slow,
}

const FIRST: &str = "SELECT ORDER_ID FROM orders";
const SECOND: &str = "SELECT ORDER_ID FROM orders WHERE ORDER_ID > 7";

fn points(act: Act) -> &'static [&'static str] {
    match act {
        Act::Deploy => {
            &["manager.deploy.written", "manager.deploy.topic", "manager.deploy.called", "manager.deploy.done"]
        }
        Act::Update => &["manager.update.written", "manager.update.called", "manager.update.done"],
        Act::Stop => &["manager.stop.written", "manager.stop.called", "manager.stop.done"],
        Act::Delete => &[
            "manager.stop.called",
            "manager.remove.written",
            "manager.remove.called",
            "manager.remove.done",
            "manager.delete.topic",
            "manager.delete.done",
        ],
    }
}

struct Scene {
    world: World,
    ksqldb: KsqldbStandIn,
    what: String,
}

impl Scene {
    async fn new(what: String) -> Scene {
        let world = World::new(1).await;
        let options = Options {
            bootstrap_servers: world.kafka.clone(),
            service_id: format!("{}_", world.group),
            ..Options::default()
        };
        let arguments = ["--exact", "manager_crashes::stand_in_process", "--nocapture"];
        Scene { world, ksqldb: KsqldbStandIn::start(options, &arguments).unwrap(), what }
    }

    fn launch(&self, crash: &str) -> Instance {
        let url = self.ksqldb.url();
        self.world.launch(&[
            ("STREAMVIEW_MANAGER__ENABLED", "true"),
            ("STREAMVIEW_MANAGER__RECONCILE_INTERVAL_MS", "200"),
            ("STREAMVIEW_KSQLDB__URL", &url),
            ("STREAMVIEW_CRASH_AT", crash),
        ])
    }

    /// A definition as it is before that, in a process that will die.
    async fn before(&self, act: Act, dying: &Instance) -> (String, String) {
        dying.until_ready().await;
        let columns = json!([{ "name": "ORDER_ID", "type": "bigint" }]);
        let source = json!({ "topic": self.world.topic, "format": "json", "columns": columns });
        let put = dying.http.put(dying.url("/api/catalog/orders")).json(&source).send().await.unwrap();
        assert_eq!(put.status(), 200, "{}", put.text().await.unwrap());
        let made = dying.posted("/api/streams", &json!({ "name": "orders", "sqlScript": FIRST }), 201).await;
        let path = made["href"].as_str().unwrap().to_owned();
        if act != Act::Deploy {
            let deployed = dying.post(&format!("{path}/deploy"), &json!({})).await;
            assert!(deployed.status().is_success(), "{}: {}", self.what, deployed.text().await.unwrap());
            self.settled(dying, &path).await;
        }
        (path, made["outputTopic"].as_str().unwrap().to_owned())
    }

    /// Waits until everything is as it is wanted.
    async fn settled(&self, instance: &Instance, path: &str) -> Value {
        let what = format!("{}: the stream is settled; {}", self.what, instance.log_text());
        until(&what, PATIENCE, || async {
            let now = instance.json(path).await;
            now["isSettled"].as_bool().unwrap().then_some(now)
        })
        .await
    }

    /// The persistent queries of the server, as it says itself.
    async fn queries(&self, instance: &Instance) -> Vec<Value> {
        let ask = instance.http.post(format!("{}/ksql", self.ksqldb.url())).json(&json!({ "ksql": "SHOW QUERIES;" }));
        let answer: Value = ask.send().await.unwrap().json().await.unwrap();
        answer[0]["queries"].as_array().unwrap().clone()
    }
}

/// Asks for it in a process that dies meanwhile: whether an answer comes is chance.
async fn ask(dying: &Instance, path: &str, act: Act) {
    let request = match act {
        Act::Deploy => dying.http.post(dying.url(&format!("{path}/deploy"))).json(&json!({})),
        Act::Update => dying.http.put(dying.url(path)).json(&json!({ "sqlScript": SECOND })),
        Act::Stop => dying.http.post(dying.url(&format!("{path}/stop"))).json(&json!({})),
        Act::Delete => dying.http.delete(dying.url(&format!("{path}?deleteTopic=true"))),
    };
    if let Ok(answer) = request.send().await {
        assert!(answer.status().is_success(), "{act:?}: {}", answer.text().await.unwrap());
    }
}

async fn dies_at(act: Act, point: &'static str, weather: Weather) {
    let scene = Scene::new(format!("{act:?} killed at {point}, {weather:?}")).await;
    let what = &scene.what;
    let dying = scene.launch(point);
    let (path, topic) = scene.before(act, &dying).await;
    if weather == Weather::Slow {
        let words = match act {
            Act::Deploy | Act::Update => "CREATE",
            Act::Stop | Act::Delete => "TERMINATE",
        };
        let slow = Some((words.to_owned(), 1_000));
        scene.ksqldb.switch(&Switches { slow, ..Switches::default() }).unwrap();
    }
    ask(&dying, &path, act).await;
    assert!(Instance::was_killed(dying.until_ended().await), "{what}: {}", dying.log_text());
    if weather == Weather::Gone {
        scene.ksqldb.switch(&Switches { away: Some(50302), ..Switches::default() }).unwrap();
    }
    let next = scene.launch("");
    next.until_ready().await;
    if weather == Weather::Gone {
        let is_gone = async || next.get(&path).await.status() == 404;
        until(&format!("{what}: the engine is seen to be gone"), PATIENCE, || async {
            (is_gone().await || next.json(&path).await["state"] == "unknown").then_some(())
        })
        .await;
        scene.ksqldb.switch(&Switches::default()).unwrap();
    }
    let expected = match act {
        Act::Delete => {
            until(&format!("{what}: it is gone"), PATIENCE, || async {
                (next.get(&path).await.status() == 404).then_some(())
            })
            .await;
            0
        }
        Act::Stop => {
            let settled = scene.settled(&next, &path).await;
            assert_eq!((&settled["wanted"], &settled["isActive"]), (&json!("stopped"), &json!(false)), "{what}");
            0
        }
        Act::Deploy | Act::Update => {
            let revision = if act == Act::Update { 2 } else { 1 };
            let settled = scene.settled(&next, &path).await;
            assert_eq!(
                (&settled["deployedRevision"], &settled["isActive"]),
                (&json!(revision), &json!(true)),
                "{what}"
            );
            1
        }
    };
    let queries = scene.queries(&next).await;
    assert_eq!(queries.len(), expected, "{what}: {queries:?}");
    if act == Act::Update {
        assert!(queries[0]["queryString"].as_str().unwrap().contains('7'), "{what}: {queries:?}");
    }
    // Other scenes have topics on the same brokers, which may name for a moment what they have just deleted.
    until(&format!("{what}: nothing is left of it"), PATIENCE, || async {
        let orphans = next.json("/api/orphans").await;
        let is_ours = |orphan: &Value| orphan["kind"] == "job" || orphan["name"] == topic.as_str();
        (!orphans["items"].as_array()?.iter().any(is_ours)).then_some(())
    })
    .await;
}

async fn matrix(acts: &[Act]) {
    let mut cases = Vec::new();
    for act in acts {
        for point in points(*act) {
            for weather in [Weather::Fine, Weather::Gone, Weather::Slow] {
                cases.push(dies_at(*act, point, weather));
            }
        }
    }
    stream::iter(cases).buffer_unordered(4).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_any_two_steps_of_a_deployment_or_update_leaves_what_was_wanted() {
    matrix(&[Act::Deploy, Act::Update]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_any_two_steps_of_a_stop_or_deletion_leaves_what_was_wanted() {
    matrix(&[Act::Stop, Act::Delete]).await;
}
