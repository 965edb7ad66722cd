//! `kill -9` at every point of a commit, and an instance that sleeps through its successor: each window is committed once, and
//! holds every row.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use streamview::manager::engines::Engine;

use crate::bench::{definition, deployment, engine, kept, order, values};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

const MINUTE: i64 = 60_000;
const PARTITIONS: i32 = 3;
const POINTS: [&str; 4] = ["query.begun", "query.sent", "query.positions", "query.committed"];
/// How often each point kills: a beginning is one commit, what follows are positions, and windows that close.
const PASSES: [u32; 3] = [1, 2, 4];

/// Not a test by itself: the instance that the others kill.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance() {
    let Ok(task) = std::env::var("STREAMVIEW_TEST_INSTANCE") else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let [kafka, topic, definition, attempt] = words[..] else { panic!("{task}") };
    let engine = engine(kafka);
    // Without positions of before there is nothing to go on from.
    let restored = deployment(definition, topic, attempt.parse().unwrap(), kept(definition));
    if engine.deploy(&restored).await.is_err() {
        engine.deploy(&deployment(definition, topic, 1, None)).await.unwrap();
    }
    until("somebody ends it", PATIENCE * 20, || async { engine.running().is_empty().then_some(()) }).await;
}

/// An instance as a process of its own.
struct Instance(Child);

impl Instance {
    fn start(world: &World, definition: &str, attempt: i32, variable: Option<(&str, String)>) -> Instance {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "kills::an_instance", "--nocapture"])
            .env("STREAMVIEW_TEST_INSTANCE", format!("{} {} {definition} {attempt}", world.kafka, world.topic))
            .stdout(Stdio::null());
        for name in ["STREAMVIEW_CRASH_AT", "STREAMVIEW_STOP_AT"] {
            command.env_remove(name);
        }
        if let Some((name, value)) = variable {
            command.env(name, value);
        }
        Instance(command.spawn().unwrap())
    }

    async fn until_over(&mut self, what: &str) -> ExitStatus {
        let child = std::sync::Mutex::new(&mut self.0);
        until(what, PATIENCE * 4, || async { child.lock().unwrap().try_wait().unwrap() }).await
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Orders in disorder, and what a plain fold makes of them.
#[derive(Default)]
struct Orders {
    id: i64,
    /// How far each partition is.
    times: [i64; PARTITIONS as usize],
    fold: BTreeMap<(i64, String), (u64, i64)>,
}

impl Orders {
    /// Some more of every partition: up to five seconds out of order, none of them late.
    fn more(&mut self, count: usize, random: &mut fastrand::Rng) -> Vec<TestRecord> {
        let one = |_| {
            let partition = random.usize(..self.times.len());
            self.times[partition] += random.i64(0..4_000);
            let ts = (self.times[partition] - random.i64(0..5_000)).max(0);
            let (customer, cents) = (format!("c{}", random.u8(..4)), random.i64(1..100_000));
            let folded = self.fold.entry((ts / MINUTE, customer.clone())).or_default();
            *folded = (folded.0 + 1, folded.1 + cents);
            self.id += 1;
            order(i32::try_from(partition).unwrap(), self.id, &customer, cents, ts)
        };
        (0..count).map(one).collect()
    }

    /// One of each partition, so late that everything before is closed.
    fn last(&mut self) -> Vec<TestRecord> {
        let end = self.times.iter().max().unwrap() + 3 * MINUTE;
        let records = (0..PARTITIONS).map(|partition| order(partition, -1, "end", 1, end));
        self.times = [end; PARTITIONS as usize];
        records.collect()
    }
}

/// What was committed, by minute and customer.
fn written(world: &World, output: &str) -> BTreeMap<(i64, String), Vec<(u64, i64)>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for value in values(world, output) {
        let minute: jiff::Timestamp = value["minute"].as_str().unwrap().parse().unwrap();
        let key = (minute.as_millisecond() / MINUTE, value["customer"].as_str().unwrap().to_owned());
        let cents = (value["total"].as_f64().unwrap() * 100.0).round() as i64;
        found.entry(key).or_default().push((value["n"].as_u64().unwrap(), cents));
    }
    found
}

fn once(fold: &BTreeMap<(i64, String), (u64, i64)>) -> BTreeMap<(i64, String), Vec<(u64, i64)>> {
    fold.iter().map(|(key, value)| (key.clone(), vec![*value])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_inside_any_commit_writes_each_window_once() {
    let world = World::new(PARTITIONS).await;
    let (definition, mut attempt) = (definition(), 1);
    let output = deployment(&definition, &world.topic, 1, None).names.topic();
    world.create_topic(&output, 1, &[]).await;
    let (mut orders, mut random) = (Orders::default(), fastrand::Rng::with_seed(16));
    let mut kills = 0;
    for pass in PASSES {
        for point in POINTS {
            attempt += 1;
            world.publish(orders.more(150, &mut random)).await;
            let crash = ("STREAMVIEW_CRASH_AT", format!("{point}:{pass}"));
            let mut instance = Instance::start(&world, &definition, attempt, Some(crash));
            // Something is committed again and again.
            let status = until(&format!("it is killed at {point}"), PATIENCE * 4, || {
                let (more, over, world) = (orders.more(20, &mut random), instance.0.try_wait().unwrap(), &world);
                async move {
                    world.publish(more).await;
                    over
                }
            })
            .await;
            assert_eq!(status.signal(), Some(9), "{point}:{pass}: {status}");
            kills += 1;
        }
    }
    assert_eq!(kills, POINTS.len() * PASSES.len());
    world.publish(orders.last()).await;
    let expected = once(&orders.fold);
    let _last = Instance::start(&world, &definition, attempt + 1, None);
    until("all windows are written", PATIENCE * 4, || async {
        let written = written(&world, &output);
        (written.len() >= expected.len()).then_some(())
    })
    .await;
    assert_eq!(written(&world, &output), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_sleeps_through_its_successor_writes_nothing_more() {
    let world = World::new(PARTITIONS).await;
    let definition = definition();
    let output = deployment(&definition, &world.topic, 1, None).names.topic();
    world.create_topic(&output, 1, &[]).await;
    let (mut orders, mut random) = (Orders::default(), fastrand::Rng::with_seed(17));
    world.publish(orders.more(300, &mut random)).await;
    world.publish(orders.last()).await;
    // With its rows sent and not yet committed.
    let stop = ("STREAMVIEW_STOP_AT", "query.positions:2".to_owned());
    let mut zombie = Instance::start(&world, &definition, 1, Some(stop));
    let pid = zombie.0.id();
    until("it sleeps", PATIENCE * 2, || async {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        state.rsplit(") ").next().unwrap().starts_with('T').then_some(())
    })
    .await;
    let successor = engine(&world.kafka);
    successor.deploy(&deployment(&definition, &world.topic, 2, kept(&definition))).await.unwrap();
    let expected = once(&orders.fold);
    until("the successor has written all windows", PATIENCE * 2, || async {
        (written(&world, &output).len() >= expected.len()).then_some(())
    })
    .await;
    Command::new("kill").args(["-CONT", &pid.to_string()]).status().unwrap();
    let status = zombie.until_over("it has seen that another one has taken over").await;
    assert!(status.success(), "it ends in order: {status}");
    assert_eq!(written(&world, &output), expected);
    assert_eq!(successor.running().len(), 1, "and leaves its successor alone");
}
