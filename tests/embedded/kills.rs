//! `kill -9` at every point of a commit, and an instance that sleeps through its successor: each window is committed once, and
//! holds every row that did not come too late.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use fastrand::Rng;
use futures_util::future::join_all;
use streamview::manager::engines::Engine;

use crate::bench::{definition, deployment, engine, engine_with, kept};
use crate::orders::{Orders, PARTITIONS, put_aside, rows_in, written};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const POINTS: [&str; 4] = ["query.begun", "query.sent", "query.positions", "query.committed"];
/// How often each point kills: a beginning is one commit, what follows are positions, and windows that close.
const PASSES: [u32; 3] = [1, 2, 4];
/// Streams that are killed beside each other where there are many kills.
const BESIDE: usize = 3;

/// Not a test by itself: the instance that the others kill.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance() {
    let Ok(task) = std::env::var("STREAMVIEW_TEST_INSTANCE") else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let [kafka, topic, definition, attempt] = words[..] else { panic!("{task}") };
    // Longer than the others who send to it may be held up: what a partition is silent for costs rows that come in time.
    let engine = engine_with(kafka, 10_000);
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

/// How an instance is killed.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// The n-th time that it comes to a point of a commit.
    At(&'static str, u32),
    /// At any moment, after so many batches of orders.
    After(u32),
}

/// Every point and pass in any order, once and again, and a kill at any moment now and then.
fn kills(count: usize, random: &mut Rng) -> Vec<Kill> {
    let mut kills = Vec::new();
    while kills.len() < count {
        let all = PASSES.iter().flat_map(|pass| POINTS.map(|point| Kill::At(point, *pass)));
        let mut all: Vec<Kill> = all.collect();
        if count > all.len() {
            all.extend((0..4).map(|_| Kill::After(random.u32(1..60))));
        }
        random.shuffle(&mut all);
        kills.extend(all);
    }
    kills.truncate(count);
    kills
}

/// What became of a stream that was killed again and again.
struct Survived {
    kills: usize,
    rows: usize,
    windows: usize,
    late: usize,
}

/// A stream of its own is killed in all these ways, while orders come.
async fn survive(kills: Vec<Kill>, mut random: Rng) -> Survived {
    let world = World::new(PARTITIONS).await;
    let definition = definition();
    let output = deployment(&definition, &world.topic, 1, None).names.topic();
    world.create_topic(&output, 1, &[]).await;
    let (mut orders, mut attempt) = (Orders::unruly(), 1);
    for (number, kill) in kills.iter().enumerate() {
        attempt += 1;
        orders.hush(&mut random);
        world.publish(orders.more(150, &mut random)).await;
        let crash = match kill {
            Kill::At(point, pass) => Some(("STREAMVIEW_CRASH_AT", format!("{point}:{pass}"))),
            Kill::After(_) => None,
        };
        let mut instance = Instance::start(&world, &definition, attempt, crash);
        let mut batches = 0;
        // Something is committed again and again.
        let status = until(&format!("it is killed: {kill:?}, the {number}th"), PATIENCE * 4, || {
            batches += 1;
            if matches!(kill, Kill::After(most) if batches > *most) {
                instance.0.kill().unwrap();
            }
            let (more, over, world) = (orders.more(20, &mut random), instance.0.try_wait().unwrap(), &world);
            async move {
                world.publish(more).await;
                over
            }
        })
        .await;
        assert_eq!(status.signal(), Some(9), "{kill:?}: {status}");
    }
    world.publish(orders.last()).await;
    let _last = Instance::start(&world, &definition, attempt + 1, None);
    // Each row is in a window, or stands aside as too late for its own.
    until("all rows have come somewhere", PATIENCE * 4, || async {
        let in_windows = tokio::task::block_in_place(|| rows_in(&written(&world, &output)));
        (in_windows + put_aside(&world, &output).await.len() >= orders.count()).then_some(())
    })
    .await;
    let aside = put_aside(&world, &output).await;
    let late = BTreeSet::from_iter(aside.iter().copied());
    assert_eq!(aside.len(), late.len(), "a late row stands aside once: {aside:?}");
    let windows = tokio::task::block_in_place(|| written(&world, &output));
    assert_eq!(windows, orders.fold(&late));
    // A partition that is silent for long is not waited for, so that rows in time may come too late; most do not.
    let (in_time, tardy) = orders.punctual(&late);
    assert!(in_time * 10 < orders.count(), "{in_time} of {} rows that came in time are late", orders.count());
    Survived { kills: kills.len(), rows: orders.count(), windows: windows.len(), late: in_time + tardy }
}

/// Twelve kills; as many as it is told in `make soak`, of a few streams beside each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_inside_any_commit_writes_each_window_once() {
    let seed = std::env::var("STREAMVIEW_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    let many = std::env::var("STREAMVIEW_TEST_KILLS").ok().map(|text| text.parse::<usize>().unwrap());
    println!("STREAMVIEW_TEST_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let kills = kills(many.unwrap_or(POINTS.len() * PASSES.len()), &mut random);
    let each = match many {
        Some(_) => kills.len().div_ceil(BESIDE),
        None => kills.len(),
    };
    let streams = kills.chunks(each.max(1)).map(|kills| survive(kills.to_vec(), random.fork()));
    let began = std::time::Instant::now();
    for Survived { kills, rows, windows, late } in join_all(streams.collect::<Vec<_>>()).await {
        println!(
            "{kills} kills: {windows} windows of {rows} rows, each once and exact; {late} rows late, each aside once"
        );
    }
    println!("in {:.0} s", began.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_sleeps_through_its_successor_writes_nothing_more() {
    let world = World::new(PARTITIONS).await;
    let definition = definition();
    let output = deployment(&definition, &world.topic, 1, None).names.topic();
    world.create_topic(&output, 1, &[]).await;
    let (mut orders, mut random) = (Orders::default(), Rng::with_seed(17));
    world.publish(orders.more(300, &mut random)).await;
    world.publish(orders.last()).await;
    // With its rows sent and not yet committed.
    let stop = ("STREAMVIEW_STOP_AT", "query.positions".to_owned());
    let mut zombie = Instance::start(&world, &definition, 1, Some(stop));
    let pid = zombie.0.id();
    until("it sleeps", PATIENCE * 2, || async {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        state.rsplit(") ").next().unwrap().starts_with('T').then_some(())
    })
    .await;
    let successor = engine(&world.kafka);
    successor.deploy(&deployment(&definition, &world.topic, 2, kept(&definition))).await.unwrap();
    let expected = orders.fold(&BTreeSet::new());
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
