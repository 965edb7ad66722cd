//! The process dies by SIGKILL between any two steps of what the stream manager does, while its engine is well, slow or gone:
//! at the end what is wanted is what runs, and nothing is left that is not listed. The engines are the stand-in for ksqlDB, a
//! process of its own, and a real Flink behind doors that are shut; both on a real Kafka.

use fastrand::Rng;
use futures_util::{StreamExt, stream};
use rdkafka::Message;
use serde_json::{Value, json};
use streamview::config::Config;
use streamview::manager::ports::Kafka;
use streamview::platforms::kafka::topics::Topics;
use streamview_lab::ksqldb_stand_in::{KsqldbStandIn, Options, Switches, run_if_asked};

use crate::support::door::Door;
use crate::support::flink::shared;
use crate::support::instance::Instance;
use crate::support::world::{TestRecord, World, records};
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
    /// With its topic.
    Delete,
    /// Its topic stays.
    Leave,
}

/// What is wrong with the engine.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Weather {
    Fine,
    /// It is gone when the next process comes.
    Gone,
    /// It answers late, but does what it is asked.
    Slow,
}

impl Weather {
    const ALL: [Weather; 3] = [Weather::Fine, Weather::Gone, Weather::Slow];
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum On {
    Flink,
    Ksqldb,
}

const FIRST: &str = "SELECT ORDER_ID FROM orders";
const SECOND: &str = "SELECT ORDER_ID FROM orders WHERE ORDER_ID > 7";

/// Where it dies. A number where the deployment before passes the same point.
fn points(act: Act, on: On) -> &'static [&'static str] {
    match (act, on) {
        (Act::Deploy, _) => {
            &["manager.deploy.written", "manager.deploy.topic", "manager.deploy.called", "manager.deploy.done"]
        }
        // Flink stops the old one with a savepoint, from which the new one goes on; ksqlDB replaces it.
        (Act::Update, On::Flink) => &[
            "manager.stop.written",
            "manager.stop.called",
            "manager.stop.done",
            "manager.update.written",
            "manager.deploy.topic:2",
            "manager.update.called",
            "manager.update.done",
        ],
        (Act::Update, On::Ksqldb) => {
            &["manager.update.written", "manager.deploy.topic:2", "manager.update.called", "manager.update.done"]
        }
        (Act::Stop, _) => &["manager.stop.written", "manager.stop.called", "manager.stop.done"],
        (Act::Delete, _) => &[
            "manager.stop.written",
            "manager.stop.called",
            "manager.stop.done",
            "manager.remove.written",
            "manager.remove.called",
            "manager.remove.done",
            "manager.delete.topic",
            "manager.delete.done",
        ],
        (Act::Leave, _) => &["manager.remove.done", "manager.delete.done"],
    }
}

/// The engine of a scene.
enum Server {
    /// The one that all share, behind doors of its own: the gateway's and the JobManager's.
    Flink {
        gateway: Door,
        rest: Door,
    },
    Ksqldb(KsqldbStandIn),
}

impl Server {
    async fn new(on: On, world: &World) -> Server {
        match on {
            On::Flink => {
                let cluster = tokio::task::block_in_place(shared);
                Server::Flink {
                    gateway: Door::of(&cluster.gateway_url(), &["\"statement\":\"INSERT"]).await,
                    rest: Door::of(&cluster.rest_url(), &["/stop HTTP/1.1", "PATCH /jobs/", "POST /savepoint-"]).await,
                }
            }
            On::Ksqldb => {
                let options = Options {
                    bootstrap_servers: world.kafka.clone(),
                    service_id: format!("{}_", world.group),
                    ..Options::default()
                };
                let arguments = ["--exact", "manager_crashes::stand_in_process", "--nocapture"];
                Server::Ksqldb(KsqldbStandIn::start(options, &arguments).unwrap())
            }
        }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Server::Flink { gateway, rest } => vec![
                ("STREAMVIEW_FLINK__GATEWAY_URL", gateway.url()),
                ("STREAMVIEW_FLINK__REST_URL", rest.url()),
                ("STREAMVIEW_FLINK__SAVEPOINT_DIR", shared().savepoint_dir()),
            ],
            Server::Ksqldb(stand_in) => vec![("STREAMVIEW_KSQLDB__URL", stand_in.url())],
        }
    }

    /// From now on it does what it is asked, and says so late: Flink when nobody waits for it any more.
    fn slow(&self, act: Act) {
        match self {
            Server::Flink { gateway, rest } => {
                gateway.answer_late(true);
                rest.answer_late(true);
            }
            Server::Ksqldb(stand_in) => {
                let words = if matches!(act, Act::Deploy | Act::Update) { "CREATE" } else { "TERMINATE" };
                let slow = Some((words.to_owned(), 1_000));
                stand_in.switch(&Switches { slow, ..Switches::default() }).unwrap();
            }
        }
    }

    /// How many answers came when nobody waited for them.
    fn late_answers(&self) -> usize {
        match self {
            Server::Flink { gateway, rest } => gateway.late_answers() + rest.late_answers(),
            Server::Ksqldb(_) => 0,
        }
    }

    fn hurry(&self) {
        match self {
            Server::Flink { gateway, rest } => {
                gateway.answer_late(false);
                rest.answer_late(false);
            }
            Server::Ksqldb(stand_in) => stand_in.switch(&Switches::default()).unwrap(),
        }
    }

    async fn go(&self) {
        match self {
            Server::Flink { gateway, rest } => {
                gateway.shut().await;
                rest.shut().await;
            }
            Server::Ksqldb(stand_in) => {
                stand_in.switch(&Switches { away: Some(50302), ..Switches::default() }).unwrap();
            }
        }
    }

    async fn come_back(&self) {
        match self {
            Server::Flink { gateway, rest } => {
                gateway.open().await;
                rest.open().await;
            }
            Server::Ksqldb(stand_in) => stand_in.switch(&Switches::default()).unwrap(),
        }
    }

    /// What runs for the definition with this output topic, as the engine says itself: a line each.
    async fn runs(&self, topic: &str) -> Vec<String> {
        let http = reqwest::Client::new();
        let (request, list) = match self {
            Server::Flink { .. } => (http.get(format!("{}/jobs/overview", shared().rest_url())), "/jobs"),
            Server::Ksqldb(stand_in) => {
                let show = json!({ "ksql": "SHOW QUERIES;" });
                (http.post(format!("{}/ksql", stand_in.url())).json(&show), "/0/queries")
            }
        };
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        let all = answer.pointer(list).unwrap().as_array().unwrap();
        match self {
            Server::Flink { .. } => {
                let ours = format!("sv-orders-{}-", topic.rsplit_once('_').unwrap().1);
                let is_over = |job: &Value| matches!(job["state"].as_str(), Some("FINISHED" | "CANCELED" | "FAILED"));
                let names = all.iter().filter(|job| !is_over(job)).map(|job| job["name"].as_str().unwrap().to_owned());
                names.filter(|name| name.starts_with(&ours)).collect()
            }
            // A server of its own: whatever it runs is ours.
            Server::Ksqldb(_) => all.iter().map(|query| query["queryString"].as_str().unwrap().to_owned()).collect(),
        }
    }
}

struct Scene {
    world: World,
    server: Server,
    what: String,
}

impl Scene {
    fn launch(&self, crash: &str) -> Instance {
        let own = self.server.settings();
        let mut settings = vec![
            ("STREAMVIEW_MANAGER__ENABLED", "true"),
            ("STREAMVIEW_MANAGER__RECONCILE_INTERVAL_MS", "200"),
            ("STREAMVIEW_CRASH_AT", crash),
        ];
        settings.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
        self.world.launch(&settings)
    }

    /// A definition as it is before that, in a process that will die: its path and its output topic.
    async fn before(&self, act: Act, dying: &Instance) -> (String, String) {
        dying.until_ready().await;
        let columns = json!([{ "name": "ORDER_ID", "type": "bigint" }, { "name": "AMOUNT", "type": "double" }]);
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
        until(&format!("{}: the stream is settled", self.what), PATIENCE, || async {
            let now = instance.json(path).await;
            now["isSettled"].as_bool().unwrap().then_some(now)
        })
        .await
    }

    async fn until_gone(&self, instance: &Instance, path: &str) {
        let is_gone = async || (instance.get(path).await.status() == 404).then_some(());
        until(&format!("{}: the stream is gone", self.what), PATIENCE, is_gone).await;
    }

    /// What is published is read by it, whoever began it.
    async fn passes_rows_on(&self, topic: &str) {
        let payload = Some(br#"{"ORDER_ID": 9, "AMOUNT": 1.5}"#.to_vec());
        self.world.publish([TestRecord { payload, ..TestRecord::default() }]).await;
        until(&format!("{}: its row is in {topic}", self.what), PATIENCE, || async {
            let written = tokio::task::block_in_place(|| records(&self.world.kafka, topic));
            let is_it = |payload: &[u8]| serde_json::from_slice::<Value>(payload).unwrap()["ORDER_ID"] == 9;
            written.iter().any(|record| record.payload().is_some_and(is_it)).then_some(())
        })
        .await;
    }

    /// Whether the broker has the topic; `None` while it does not say.
    async fn has_topic(&self, topic: &str) -> Option<bool> {
        let topics = Topics::new(&Config::load(None, self.world.environment(), &[]).unwrap().kafka);
        Some(topics.topics().await.ok()?.iter().any(|known| known.name == topic))
    }

    /// Nothing runs that no definition knows; its topic is a definition's, gone, or listed. Other scenes have topics on the same
    /// brokers, and jobs in the same Flink.
    async fn nothing_is_left_unlisted(&self, act: Act, instance: &Instance, topic: &str) {
        let tag = topic.rsplit_once('_').unwrap().1.to_lowercase();
        until(&format!("{}: nothing is left of it that is not listed", self.what), PATIENCE, || async {
            let orphans = instance.json("/api/orphans").await;
            let is_ours = |orphan: &&Value| orphan["name"].as_str().unwrap().to_lowercase().contains(&tag);
            let ours: Vec<(&str, &str)> = orphans["items"]
                .as_array()?
                .iter()
                .filter(is_ours)
                .map(|orphan| (orphan["kind"].as_str().unwrap(), orphan["name"].as_str().unwrap()))
                .collect();
            // The brokers may name for a moment what they have just deleted.
            let is_so = match act {
                Act::Leave => ours == [("topic", topic)],
                Act::Delete => ours.is_empty() && !self.has_topic(topic).await?,
                Act::Deploy | Act::Update | Act::Stop => ours.is_empty() && self.has_topic(topic).await?,
            };
            is_so.then_some(())
        })
        .await;
    }
}

/// Asks for it in a process that dies meanwhile: whether an answer comes is chance.
async fn ask(dying: &Instance, path: &str, act: Act) {
    let request = match act {
        Act::Deploy => dying.http.post(dying.url(&format!("{path}/deploy"))).json(&json!({})),
        Act::Update => dying.http.put(dying.url(path)).json(&json!({ "sqlScript": SECOND })),
        Act::Stop => dying.http.post(dying.url(&format!("{path}/stop"))).json(&json!({})),
        Act::Delete => dying.http.delete(dying.url(&format!("{path}?deleteTopic=true"))),
        Act::Leave => dying.http.delete(dying.url(path)),
    };
    if let Ok(answer) = request.send().await {
        assert!(answer.status().is_success(), "{act:?}: {}", answer.text().await.unwrap());
    }
}

async fn dies_at(on: On, act: Act, point: &'static str, weather: Weather) {
    let world = World::new(1).await;
    let server = Server::new(on, &world).await;
    let scene = Scene { world, server, what: format!("{act:?} on {on:?} killed at {point}, {weather:?}") };
    let what = &scene.what;
    let dying = scene.launch(point);
    let (path, topic) = scene.before(act, &dying).await;
    if weather == Weather::Slow {
        scene.server.slow(act);
    }
    ask(&dying, &path, act).await;
    assert!(Instance::was_killed(dying.until_ended().await), "{what}: {}", dying.log_text());
    if weather == Weather::Gone {
        scene.server.go().await;
    }
    let next = scene.launch("");
    next.until_ready().await;
    if weather == Weather::Gone {
        let is_gone = async || next.get(&path).await.status() == 404;
        until(&format!("{what}: the engine is seen to be gone"), PATIENCE, || async {
            (is_gone().await || next.json(&path).await["state"] == "unknown").then_some(())
        })
        .await;
        scene.server.come_back().await;
    }
    let runs = match act {
        Act::Delete | Act::Leave => {
            scene.until_gone(&next, &path).await;
            false
        }
        Act::Stop => {
            let settled = scene.settled(&next, &path).await;
            assert_eq!((&settled["wanted"], &settled["isActive"]), (&json!("stopped"), &json!(false)), "{what}");
            false
        }
        Act::Deploy | Act::Update => {
            let revision = if act == Act::Update { 2 } else { 1 };
            let settled = scene.settled(&next, &path).await;
            let is = (&settled["deployedRevision"], &settled["isActive"]);
            assert_eq!(is, (&json!(revision), &json!(true)), "{what}: {settled}");
            scene.passes_rows_on(&topic).await;
            true
        }
    };
    let running = scene.server.runs(&topic).await;
    assert_eq!(running.len(), usize::from(runs), "{what}: {running:?}");
    if act == Act::Update {
        let revision = if on == On::Flink { "-r2-" } else { "> 7" };
        assert!(running[0].contains(revision), "{what}: {running:?}");
    }
    scene.nothing_is_left_unlisted(act, &next, &topic).await;
    if weather == Weather::Slow && on == On::Flink {
        assert!(scene.server.late_answers() > 0, "{what}: every answer came in time");
    }
    scene.server.hurry();
    if runs && on == On::Flink {
        // Its place in the Flink of all.
        next.http.delete(next.url(&path)).send().await.unwrap();
        scene.until_gone(&next, &path).await;
    }
}

/// All of these acts, killed at each of their points, in each weather.
async fn matrix(acts: &[Act]) {
    let mut cases = Vec::new();
    for act in acts {
        for point in points(*act, On::Ksqldb) {
            for weather in Weather::ALL {
                cases.push(dies_at(On::Ksqldb, *act, point, weather));
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
    matrix(&[Act::Stop, Act::Delete, Act::Leave]).await;
}

/// One point of each act by chance, as each takes a real Flink its time; all of them in `make soak`.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_two_steps_on_a_real_flink_leaves_what_was_wanted() {
    let seed = std::env::var("STREAMVIEW_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("STREAMVIEW_TEST_SEED={seed}");
    let is_soak = std::env::var_os("STREAMVIEW_TEST_KILLS").is_some();
    let mut random = Rng::with_seed(seed);
    let mut cases = Vec::new();
    for act in [Act::Deploy, Act::Update, Act::Stop, Act::Delete, Act::Leave] {
        let mut all: Vec<_> =
            points(act, On::Flink).iter().flat_map(|point| Weather::ALL.map(|weather| (*point, weather))).collect();
        random.shuffle(&mut all);
        all.truncate(if is_soak { all.len() } else { 1 });
        cases.extend(all.into_iter().map(|(point, weather)| dies_at(On::Flink, act, point, weather)));
    }
    stream::iter(cases).buffer_unordered(5).collect::<Vec<()>>().await;
}
