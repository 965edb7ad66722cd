//! `kill -9`, wherever it hurts: nothing is lost, nothing is applied twice.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use streamview::crash::POINTS;

use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// A restart takes its partitions back at once, and a batch is small enough to leave something for the next one.
const SETTINGS: [(&str, &str); 2] =
    [("STREAMVIEW_KAFKA__INSTANCE_ID", "a"), ("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", "20")];

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_point_of_the_commit_path_loses_and_repeats_nothing() {
    // Those of a bulk load, of operations, of a mended order and of single parts have their own tests.
    let elsewhere =
        ["load.", "part.", "rebuild.", "switch.", "operation.", "cleanup.", "verify.", "mend.", "manager.", "query."];
    let points = POINTS.iter().filter(|point| !elsewhere.iter().any(|kind| point.starts_with(kind)));
    let crashes = points.map(|point| async move {
        // The first time that a point is reached is often a special case: the third is in the middle of the load.
        let time = match *point {
            "assign.acquired" | "revoke.closed" | "shutdown.begun" => 1,
            point if point.starts_with("relay.") => 1,
            _ => 3,
        };
        crash_at(point, time).await;
    });
    stream::iter(crashes).buffer_unordered(3).collect::<Vec<()>>().await;
}

async fn crash_at(point: &str, time: u32) {
    let world = World::new(3).await;
    let load = Load::new("o", 60, 7);
    let records = load.records();
    let (before, meanwhile) = records.split_at(records.len() / 2);
    world.publish(before.to_vec()).await;
    let crash = format!("{point}:{time}");
    // A static member that dies between giving a partition up and joining again comes back to what it kept, and the
    // group gives the rest to nobody until the next change of membership: Kafka's, not ours.
    let settings = if point == "revoke.closed" { &SETTINGS[1..] } else { &SETTINGS[..] };

    let crashing = world.launch(&[settings, &[("STREAMVIEW_CRASH_AT", &crash)]].concat());
    let companion = provoke(point, &world, &crashing).await;
    let status = if point.starts_with("relay.") {
        // Letters are published beside the load, and opening the producer takes longer than the whole of it.
        let status = crashing.until_ended().await;
        world.publish(meanwhile.to_vec()).await;
        status
    } else {
        tokio::join!(crashing.until_ended(), world.publish(meanwhile.to_vec())).0
    };
    assert!(Instance::was_killed(status), "{crash}: {status}: {}", crashing.log_text());

    let consumed = world.consumed().await;
    println!("killed at {crash}, {consumed} of {} records consumed", load.len());
    assert!(consumed < load.len() || point == "revoke.closed", "{crash} is in the middle of the load");

    let restarted = world.start_with(settings).await;
    load.assert_settled(&world).await;
    drop((restarted, companion));
}

/// Two points are reached only when something happens from outside.
async fn provoke(point: &str, world: &World, crashing: &Instance) -> Option<Instance> {
    match point {
        "revoke.closed" => {
            crashing.until_ready().await;
            Some(world.launch(&[]))
        }
        "shutdown.begun" => {
            crashing.until_ready().await;
            crashing.signal("TERM");
            None
        }
        _ => None,
    }
}

/// `make soak KILLS=500` asks for more of them, with as much more load.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_at_random_moments_lose_and_repeat_nothing() {
    let kills = std::env::var("STREAMVIEW_TEST_KILLS").map_or(50, |text| text.parse().unwrap());
    let seed = std::env::var("STREAMVIEW_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("STREAMVIEW_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new(4).await;
    let load = Load::new("o", 20 * kills, seed);
    let records = load.records();
    // Something for each of them, and the rest for the survivor.
    let mut chunks = records.chunks(records.len() / kills);

    for _ in 0..kills {
        let (takeovers, consumed) = (world.takeovers().await, world.consumed().await);
        let instance = world.launch(&SETTINGS);
        // One in five dies on its way to the first record, two when they have taken over, and two when they have committed
        // something: however busy the machine is, what is seen and not how long it took says when.
        let kind = random.u8(0..5);
        let moment = Duration::from_millis(random.u64(0..250));
        let kill = async {
            until("the instance has come as far as it may", PATIENCE, || async {
                assert!(instance.exit_status().is_none(), "{}", instance.log_text());
                let is_there = match kind {
                    0 => true,
                    1 | 2 => world.takeovers().await > takeovers,
                    _ => world.consumed().await > consumed,
                };
                is_there.then_some(())
            })
            .await;
            let moment = Instant::now() + moment;
            until("the random moment", PATIENCE, || async { (Instant::now() >= moment).then_some(()) }).await;
            instance.kill_hard();
        };
        tokio::join!(kill, world.publish(chunks.next().unwrap().to_vec()));
    }
    let consumed = world.consumed().await;
    println!("{consumed} of {} records consumed under the fire of {kills} kills", load.len());
    assert!(consumed > 0, "no instance lived long enough to commit anything");

    world.publish(chunks.flatten().cloned()).await;
    let _survivor = world.start_with(&SETTINGS).await;
    load.assert_settled(&world).await;
}
