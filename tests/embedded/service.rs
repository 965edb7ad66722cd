//! The whole service dies by SIGKILL, with the stream manager and its own engine: between any two steps of what the manager does,
//! inside the commits of its query, and again and again. At the end what is wanted is what runs, each window was committed once and
//! holds every row, and nothing is left that is not listed.
//!
//! The engine cannot be away or slow by itself, as Flink can (`it/manager_crashes.rs`): it dies with the service.

use std::collections::BTreeSet;

use fastrand::Rng;
use futures_util::{StreamExt, stream};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

use crate::bench::PER_MINUTE;
use crate::orders::{Orders, PARTITIONS, put_aside, rows_in, topics, written};
use crate::support::instance::Instance;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// What is under way when it dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Deploy,
    /// By a text that keeps the state.
    Update,
    /// And is deployed again.
    Stop,
    /// With its topic, and what stands beside it.
    Delete,
    /// Its topic stays.
    Leave,
}

const ACTS: [Act; 5] = [Act::Deploy, Act::Update, Act::Stop, Act::Delete, Act::Leave];

/// Where it dies: points of the manager, with a number where the deployment before passes the same one, and of a commit of the query.
/// The first commit is that of a beginning, which is a part of the deployment.
fn points(act: Act) -> &'static [&'static str] {
    match act {
        Act::Deploy => &[
            "manager.deploy.written",
            "manager.deploy.topic",
            "query.begun:1",
            "query.sent:1",
            "query.positions:1",
            "query.committed:1",
            "manager.deploy.called",
            "manager.deploy.done",
        ],
        Act::Update => &[
            "manager.stop.written",
            "query.begun:2",
            "query.sent:2",
            "query.positions:2",
            "query.committed:2",
            "manager.stop.called",
            "manager.stop.done",
            "manager.update.written",
            "manager.deploy.topic:2",
            "manager.update.called",
            "manager.update.done",
            "query.sent:3",
            "query.committed:3",
        ],
        Act::Stop => &["manager.stop.written", "manager.stop.called", "manager.stop.done"],
        Act::Delete => &[
            "manager.stop.written",
            "manager.stop.called",
            "manager.stop.done",
            "manager.remove.written",
            "manager.remove.called",
            "manager.remove.done",
            "manager.delete.topic",
            "manager.delete.topic:2",
            "manager.delete.done",
        ],
        Act::Leave => &["manager.remove.done", "manager.delete.done"],
    }
}

/// A service with one stream, and the orders that it counts.
struct Scene {
    world: World,
    input: String,
    orders: Orders,
    random: Rng,
    what: String,
}

/// The stream, as people name it.
struct Stream {
    path: String,
    topic: String,
}

impl Stream {
    /// What the names of its topic, jobs and groups have of its id.
    fn tag(&self) -> &str {
        self.topic.rsplit_once('_').unwrap().1
    }
}

impl Scene {
    async fn new(what: String, random: Rng) -> Scene {
        let world = World::new(1).await;
        let input = format!("{}.input", world.topic);
        world.create_topic(&input, PARTITIONS, &[]).await;
        Scene { world, input, orders: Orders::default(), random, what }
    }

    fn launch(&self, crash: &str) -> Instance {
        self.world.launch(&[
            ("STREAMVIEW_MANAGER__ENABLED", "true"),
            ("STREAMVIEW_MANAGER__RECONCILE_INTERVAL_MS", "200"),
            ("STREAMVIEW_EMBEDDED__COMMIT_MS", "20"),
            // No window is closed by the clock, however long the machine takes: so no row comes too late.
            ("STREAMVIEW_EMBEDDED__IDLE_MS", "600000"),
            ("STREAMVIEW_CRASH_AT", crash),
        ])
    }

    async fn publish(&mut self, count: usize) {
        self.world.publish_to(&self.input, self.orders.more(count, &mut self.random)).await;
    }

    async fn create(&self, instance: &Instance) -> Stream {
        instance.until_ready().await;
        let columns = json!([
            { "name": "id", "type": "bigint" },
            { "name": "customer", "type": "string" },
            { "name": "amount", "type": "decimal(20, 2)" },
            { "name": "ts", "type": "timestamp(3)" },
        ]);
        let time = json!({ "column": "ts", "delayMs": 5_000 });
        let source = json!({ "topic": self.input, "format": "json", "columns": columns, "eventTime": time });
        let put = instance.http.put(instance.url("/api/catalog/orders")).json(&source).send().await.unwrap();
        assert_eq!(put.status(), 200, "{}", put.text().await.unwrap());
        let made =
            instance.posted("/api/streams", &json!({ "name": "per minute", "sqlScript": PER_MINUTE }), 201).await;
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        assert_eq!(made["engine"], "embedded", "it is the engine of whoever names none: {made}");
        Stream { path: text("href"), topic: text("outputTopic") }
    }

    /// Waits until everything is as it is wanted.
    async fn settled(&self, instance: &Instance, stream: &Stream) -> Value {
        until(&format!("{}: the stream is settled", self.what), PATIENCE * 2, || async {
            assert!(instance.exit_status().is_none(), "{}: {}", self.what, instance.log_text());
            let now = instance.json(&stream.path).await;
            now["isSettled"].as_bool().unwrap().then_some(now)
        })
        .await
    }

    async fn deploy(&self, instance: &Instance, stream: &Stream) -> Value {
        let deployed = instance.post(&format!("{}/deploy", stream.path), &json!({})).await;
        assert!(deployed.status().is_success(), "{}: {}", self.what, deployed.text().await.unwrap());
        self.settled(instance, stream).await
    }

    /// Everything that was published comes to be in a window: each once, and whole.
    async fn counts_everything(&mut self, stream: &Stream) {
        self.publish(60).await;
        self.world.publish_to(&self.input, self.orders.last()).await;
        until(&format!("{}: every row is in a window", self.what), PATIENCE * 2, || async {
            let windows = tokio::task::block_in_place(|| written(&self.world, &stream.topic));
            (rows_in(&windows) >= self.orders.count()).then_some(())
        })
        .await;
        self.has_written_nothing_wrong(stream).await;
        let windows = tokio::task::block_in_place(|| written(&self.world, &stream.topic));
        assert_eq!(windows, self.orders.fold(&BTreeSet::new()), "{}", self.what);
    }

    /// What was written is right, as far as it goes, and nothing came too late.
    async fn has_written_nothing_wrong(&self, stream: &Stream) {
        let windows = tokio::task::block_in_place(|| written(&self.world, &stream.topic));
        let fold = self.orders.fold(&BTreeSet::new());
        for (window, sums) in &windows {
            assert_eq!(fold.get(window), Some(sums), "{}: {window:?}", self.what);
        }
        assert_eq!(put_aside(&self.world, &stream.topic).await, [0; 0], "{}", self.what);
    }

    /// The consumer groups of the stream.
    fn groups(&self, stream: &Stream) -> Vec<String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.world.kafka).set("group.id", "unused");
        let client: BaseConsumer = config.create().unwrap();
        let groups = tokio::task::block_in_place(|| client.fetch_group_list(None, PATIENCE).unwrap());
        let names = groups.groups().iter().map(|group| group.name().to_owned());
        names.filter(|name| name.starts_with(&format!("streamview-{}", stream.tag()))).collect()
    }

    /// Nothing runs that no definition knows; its topic and its group are a definition's, gone, or listed.
    async fn nothing_is_left_unlisted(&self, act: Act, instance: &Instance, stream: &Stream) {
        let tag = stream.tag();
        until(&format!("{}: nothing is left of it that is not listed", self.what), PATIENCE, || async {
            let orphans = instance.json("/api/orphans").await;
            let is_ours = |orphan: &&Value| orphan["name"].as_str().unwrap().to_lowercase().contains(tag);
            let ours: Vec<(&str, &str)> = orphans["items"]
                .as_array()?
                .iter()
                .filter(is_ours)
                .map(|orphan| (orphan["kind"].as_str().unwrap(), orphan["name"].as_str().unwrap()))
                .collect();
            let there: Vec<String> =
                topics(&self.world).await.into_iter().filter(|topic| topic.starts_with(&stream.topic)).collect();
            let has_topic = there.contains(&stream.topic);
            // One group holds its positions, whatever has become of it.
            let groups = self.groups(stream);
            let is_so = match act {
                Act::Leave => ours == [("topic", stream.topic.as_str())] && groups.is_empty(),
                Act::Delete => ours.is_empty() && there.is_empty() && groups.is_empty(),
                Act::Deploy | Act::Update | Act::Stop => ours.is_empty() && has_topic && groups.len() == 1,
            };
            is_so.then_some(())
        })
        .await;
    }
}

/// A text that counts the same windows.
fn second() -> String {
    PER_MINUTE.replace("COUNT(*) AS n", "COUNT(*) AS n, MAX(amount) AS most")
}

/// Asks for it, of a process that may die meanwhile. Whether an answer comes is chance.
async fn ask(instance: &Instance, stream: &Stream, act: Act) {
    let path = &stream.path;
    let request = match act {
        Act::Deploy => instance.http.post(instance.url(&format!("{path}/deploy"))).json(&json!({})),
        Act::Update => instance.http.put(instance.url(path)).json(&json!({ "sqlScript": second() })),
        Act::Stop => instance.http.post(instance.url(&format!("{path}/stop"))).json(&json!({})),
        Act::Delete => instance.http.delete(instance.url(&format!("{path}?deleteTopic=true"))),
        Act::Leave => instance.http.delete(instance.url(path)),
    };
    if let Ok(answer) = request.send().await {
        assert!(answer.status().is_success(), "{act:?}: {}", answer.text().await.unwrap());
    }
}

/// Whether the wish was heard before the process died. In a commit of the query it may have died before.
async fn was_heard(instance: &Instance, stream: &Stream, act: Act) -> bool {
    let now = instance.get(&stream.path).await;
    match act {
        Act::Delete | Act::Leave => now.status() == 404 || now.json::<Value>().await.unwrap()["wanted"] == "deleted",
        Act::Deploy => now.json::<Value>().await.unwrap()["wanted"] == "running",
        Act::Update => now.json::<Value>().await.unwrap()["revision"] == 2,
        Act::Stop => now.json::<Value>().await.unwrap()["wanted"] == "stopped",
    }
}

async fn dies_at(act: Act, point: &'static str, random: Rng) {
    let mut scene = Scene::new(format!("{act:?} killed at {point}"), random).await;
    // Commits come with rows: where one is to die in a later commit, the rows come together with the wish.
    let is_in_commit = point.starts_with("query.");
    if !is_in_commit || act == Act::Deploy {
        scene.publish(150).await;
    }
    let dying = scene.launch(point);
    let stream = scene.create(&dying).await;
    if act != Act::Deploy {
        scene.deploy(&dying, &stream).await;
    }
    if is_in_commit && act != Act::Deploy {
        scene.publish(150).await;
    }
    if act == Act::Delete {
        // As if something had been put aside: that goes, too, wherever it dies between them.
        for ending in ["dlq", "late"] {
            scene.world.create_topic(&format!("{}.{ending}", stream.topic), 1, &[]).await;
        }
    }
    ask(&dying, &stream, act).await;
    let Scene { world, input, orders, random, what } = &mut scene;
    let (world, input, what) = (&*world, input.as_str(), what.as_str());
    let status = until(&format!("it dies: {what}"), PATIENCE * 2, || {
        // Something is to be committed again and again, until it dies there.
        let more = if is_in_commit { orders.more(10, random) } else { Vec::new() };
        let over = dying.exit_status();
        async move {
            world.publish_to(input, more).await;
            over
        }
    })
    .await;
    assert!(Instance::was_killed(status), "{what}: {}", dying.log_text());
    comes_about(scene, act, &stream).await;
}

/// In the next process everything is as it was wanted.
async fn comes_about(mut scene: Scene, act: Act, stream: &Stream) {
    let what = scene.what.clone();
    let next = scene.launch("");
    next.until_ready().await;
    if !was_heard(&next, stream, act).await {
        ask(&next, stream, act).await;
    }
    if matches!(act, Act::Delete | Act::Leave) {
        let is_gone = async || (next.get(&stream.path).await.status() == 404).then_some(());
        until(&format!("{what}: the stream is gone"), PATIENCE * 2, is_gone).await;
        if act == Act::Leave {
            scene.has_written_nothing_wrong(stream).await;
        }
        return scene.nothing_is_left_unlisted(act, &next, stream).await;
    }
    let settled = scene.settled(&next, stream).await;
    if act == Act::Stop {
        assert_eq!((&settled["wanted"], &settled["isActive"]), (&json!("stopped"), &json!(false)), "{what}");
        scene.has_written_nothing_wrong(stream).await;
        scene.nothing_is_left_unlisted(act, &next, stream).await;
        scene.deploy(&next, stream).await;
    }
    scene.counts_everything(stream).await;
    let revision = if act == Act::Update { 2 } else { 1 };
    let settled = scene.settled(&next, stream).await;
    let is = (&settled["deployedRevision"], &settled["isActive"], &settled["failedRevision"]);
    assert_eq!(is, (&json!(revision), &json!(true), &Value::Null), "{what}: {settled}");
    scene.nothing_is_left_unlisted(act, &next, stream).await;
}

/// One point of each act by chance; all of them in `make soak`.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_the_service_at_any_step_leaves_what_was_wanted_and_each_window_once() {
    let seed = std::env::var("STREAMVIEW_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("STREAMVIEW_TEST_SEED={seed}");
    let is_soak = std::env::var_os("STREAMVIEW_TEST_KILLS").is_some();
    let mut random = Rng::with_seed(seed);
    let mut cases = Vec::new();
    for act in ACTS {
        let mut all = points(act).to_vec();
        random.shuffle(&mut all);
        all.truncate(if is_soak { all.len() } else { 1 });
        cases.extend(all.into_iter().map(|point| dies_at(act, point, random.fork())));
    }
    let count = cases.len();
    stream::iter(cases).buffer_unordered(5).collect::<Vec<()>>().await;
    println!("{count} kills of the service");
}

/// More often than a query is begun again that fails by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_process_is_killed_again_and_again_is_not_given_up() {
    let kills = streamview::manager::settings::Reconcile::default().restarts + 1;
    let mut scene = Scene::new("killed again and again".to_owned(), Rng::with_seed(21)).await;
    let mut instance = scene.launch("");
    let stream = scene.create(&instance).await;
    scene.deploy(&instance, &stream).await;
    for kill in 1..=kills {
        scene.publish(40).await;
        instance.kill_hard();
        instance = scene.launch("");
        instance.until_ready().await;
        let job = format!("-{}-r1-a{}", stream.tag(), kill + 1);
        until(&format!("it runs again after kill {kill}"), PATIENCE * 2, || async {
            let now = instance.json(&stream.path).await;
            assert_eq!((&now["failedRevision"], &now["lastError"]), (&Value::Null, &Value::Null), "{kill}: {now}");
            let runs = now["isSettled"] == true && now["jobId"].as_str().unwrap().ends_with(&job);
            runs.then_some(())
        })
        .await;
    }
    scene.counts_everything(&stream).await;
    scene.nothing_is_left_unlisted(Act::Deploy, &instance, &stream).await;
}

/// The process lives, and leads again: what it runs by transactions it has run all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_process_loses_the_lead_alive_runs_on() {
    let mut scene = Scene::new("its lead is cut".to_owned(), Rng::with_seed(22)).await;
    let instance = scene.launch("");
    let stream = scene.create(&instance).await;
    scene.deploy(&instance, &stream).await;
    scene.publish(40).await;
    let leads = "from pg_locks where locktype = 'advisory' and objsubid = 1 \
                 and database = (select oid from pg_database where datname = current_database()) \
                 and (classid::bigint << 32 | objid::bigint) = hashtextextended('streamview stream manager', 0)";
    let before = scene.world.number(&format!("select coalesce(max(pid), 0)::bigint {leads}")).await;
    assert_eq!(scene.world.number(&format!("select count(pg_terminate_backend(pid)) {leads}")).await, 1, "one leads");
    until("it leads again", PATIENCE * 2, || async {
        (scene.world.number(&format!("select count(*) {leads} and pid <> {before}")).await == 1).then_some(())
    })
    .await;
    scene.publish(40).await;
    let now = instance.json(&stream.path).await;
    assert_eq!(
        (&now["state"], &now["failedRevision"], &now["lastError"]),
        (&"running".into(), &Value::Null, &Value::Null)
    );
    assert!(now["jobId"].as_str().unwrap().ends_with(&format!("-{}-r1-a1", stream.tag())), "{now}");
    scene.counts_everything(&stream).await;
    scene.nothing_is_left_unlisted(Act::Deploy, &instance, &stream).await;
}
