//! `kill -9` at any moment of rebuilds, switches, rollbacks and clean-ups, under light traffic and a constant reader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// A restart takes its partitions back at once.
const SETTINGS: [(&str, &str); 1] = [("STREAMVIEW_KAFKA__INSTANCE_ID", "a")];

/// The phases by which a moment is chosen, in their order; `over` is after the last.
const PHASES: [&str; 9] =
    ["preflight", "loading", "indexing", "catching_up", "comparing", "ready", "cutting_over", "done", "over"];

/// The latest operation: its kind, and how far it is.
async fn latest(world: &World) -> Option<(String, usize)> {
    let query = "select kind, phase, state from operations order by id desc limit 1";
    let row = world.sql.query_opt(query, &[]).await.unwrap()?;
    let (kind, phase, state): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let place = PHASES.iter().position(|known| *known == phase).unwrap();
    Some((kind, if state == "running" { place } else { PHASES.len() - 1 }))
}

async fn is_running(world: &World) -> bool {
    world.number("select count(*) from operations where state = 'running'").await > 0
}

async fn schemas(world: &World) -> Vec<String> {
    let query = "select nspname::text from pg_namespace where nspname like 'orders\\_%' order by 1";
    world.sql.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Builds that the control tables know, as names of schemas.
async fn builds(world: &World) -> Vec<String> {
    let query = "select view || '_' || build from view_builds order by 1";
    world.sql.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The instance that readers may ask, if one is there; an answer that it owes when it is killed is none of its failures.
type Door = watch::Sender<Option<String>>;

/// Reads these orders again and again: whoever is there answers, and no order ever goes back.
async fn read_on(door: &Door, orders: &[String], enough: &CancellationToken) -> usize {
    let (http, mut seen, mut reads, mut opened) = (reqwest::Client::new(), BTreeMap::new(), 0, door.subscribe());
    loop {
        let url = tokio::select! {
            () = enough.cancelled() => return reads,
            url = opened.wait_for(Option::is_some) => url.unwrap().clone().unwrap(),
        };
        for order in orders {
            let answer = async {
                let response = http.get(format!("{url}/orders/{order}")).send().await?;
                let status = response.status().as_u16();
                response.json::<Value>().await.map(|body| (status, body))
            };
            // Whoever is killed may leave its client without an answer, and without an end.
            let answer = tokio::select! {
                answer = answer => answer,
                _ = opened.wait_for(|now| now.as_ref() != Some(&url)) => break,
            };
            let (status, body) = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    assert!(
                        door.borrow().as_ref() != Some(&url),
                        "a read failed although nobody had killed it: {error:?}"
                    );
                    break;
                }
            };
            assert!(matches!(status, 200 | 404), "{order}: {status}: {body}");
            let sequence = body["lastEventSequence"].as_i64().unwrap_or(0);
            let before = seen.insert(order.clone(), sequence).unwrap_or(0);
            assert!(sequence >= before, "{order} went back from {before} to {sequence}");
            reads += 1;
        }
    }
}

/// Asks for an operation if none is under way: a rebuild, or a rollback where something is kept.
async fn ask(world: &World, instance: &Instance, random: &mut Rng) {
    if is_running(world).await {
        return;
    }
    // What is not kept is cleaned up, which is one of the moments.
    let keep_hours = if random.bool() { 0 } else { 1 };
    let body = json!({ "reason": "to be killed", "keepHours": keep_hours });
    let back = random.u8(0..3) == 0;
    let response = match back {
        true => instance.post("/ops/views/orders/rollback", &body).await,
        false => instance.post("/ops/views/rebuild", &body).await,
    };
    let status = response.status().as_u16();
    let answer: Value = response.json().await.unwrap();
    assert!(status == 202 || back && answer["code"] == "nothing_kept", "{status} {answer}");
}

/// When to kill.
enum Moment {
    /// On its way up.
    Birth,
    /// When the operation under way has come to that phase, or beyond.
    Reached(usize),
    /// When a build that was there has gone.
    Dropped,
}

impl Moment {
    fn choose(random: &mut Rng) -> Moment {
        match random.u8(0..10) {
            0 => Moment::Birth,
            1 => Moment::Dropped,
            _ => Moment::Reached(random.usize(0..PHASES.len())),
        }
    }

    async fn wait(&self, world: &World, instance: &Instance, before: &[String]) {
        until("the instance has come as far as it may", PATIENCE, || async {
            assert!(instance.exit_status().is_none(), "{}", instance.log_text());
            let has_come = match self {
                Moment::Birth => true,
                Moment::Reached(place) => latest(world).await.is_none_or(|(_, at)| at >= *place),
                // If nothing is to be dropped, the end of the operation will do.
                Moment::Dropped => {
                    let now = schemas(world).await;
                    before.iter().any(|schema| !now.contains(schema)) || !is_running(world).await
                }
            };
            has_come.then_some(())
        })
        .await;
    }
}

/// One life of an instance; gives what was under way when it was killed.
async fn live_and_die(world: &World, door: &Door, random: &mut Rng) -> String {
    let (before, moment) = (schemas(world).await, Moment::choose(random));
    let instance = world.launch(&SETTINGS);
    if !matches!(moment, Moment::Birth) {
        instance.until_ready().await;
        door.send_replace(Some(format!("http://{}", instance.address)));
        ask(world, &instance, random).await;
    }
    moment.wait(world, &instance, &before).await;
    let then = Instant::now() + Duration::from_millis(random.u64(0..40));
    until("the random moment", PATIENCE, || async { (Instant::now() >= then).then_some(()) }).await;
    door.send_replace(None);
    instance.kill_hard();
    match latest(world).await {
        Some((kind, at)) => format!("{kind} {}", PHASES[at]),
        None => "nothing".to_owned(),
    }
}

/// A rebuild without a kill, and then a kill at a named point of the rollback, or when the build that readers left is dropped.
async fn killed_at(point: &str) {
    let is_cleanup = point.starts_with("cleanup.");
    let world = World::new(2).await;
    let load = Load::new("o", 20, 5);
    world.publish(load.records()).await;
    // The rebuild passes the points of a switch first.
    let crash = if is_cleanup { point.to_owned() } else { format!("{point}:2") };
    let dying = world.start_with(&[SETTINGS[0], ("STREAMVIEW_CRASH_AT", &crash)]).await;
    world.until_consumed(load.len()).await;
    let body = json!({ "reason": point, "keepHours": if is_cleanup { 0 } else { 1 } });
    dying.posted("/ops/views/rebuild", &body, 202).await;
    if !is_cleanup {
        until("the rebuild is over", PATIENCE, || async { (!is_running(&world).await).then_some(()) }).await;
        dying.posted("/ops/views/orders/rollback", &json!({ "reason": point, "keepHours": 0 }), 202).await;
    }
    assert!(Instance::was_killed(dying.until_ended().await), "{point}: {}", dying.log_text());

    let next = world.start_with(&SETTINGS).await;
    until("nothing is under way", PATIENCE, || async { (!is_running(&world).await).then_some(()) }).await;
    let active = world.number("select build::bigint from view_builds where active").await;
    assert_eq!(active, if is_cleanup { 2 } else { 1 }, "{point}");
    until("the other build is dropped", PATIENCE, || async { (schemas(&world).await.len() == 1).then_some(()) }).await;
    assert_eq!(builds(&world).await, schemas(&world).await, "{point}");
    load.assert_settled(&world).await;
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_of_a_rollback_or_a_clean_up_the_next_process_ends_it() {
    let points = ["switch.locked", "switch.before_commit", "switch.committed", "operation.ending", "cleanup.removed"];
    stream::iter(points).map(killed_at).buffer_unordered(3).collect::<Vec<()>>().await;
}

/// `make soak KILLS=500` asks for more of them, with as much more load.
#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_at_random_moments_of_rebuilds_and_rollbacks_leave_nothing_half_done() {
    let kills = std::env::var("STREAMVIEW_TEST_KILLS").map_or(30, |text| text.parse().unwrap());
    let seed = std::env::var("STREAMVIEW_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("STREAMVIEW_TEST_SEED={seed}");
    streamview::schemas::client::install_tls();
    let mut random = Rng::with_seed(seed);
    let world = World::new(2).await;
    let load = Load::new("o", 10 * kills, seed);
    let records = load.records();
    let mut chunks = records.chunks(records.len() / kills);
    let orders: Vec<String> = (0..10).map(|number| format!("o-{number}")).collect();
    let (door, enough) = (Door::new(None), CancellationToken::new());

    let killing = async {
        let mut killed_in: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..kills {
            let (died_in, ()) =
                tokio::join!(live_and_die(&world, &door, &mut random), world.publish(chunks.next().unwrap().to_vec()));
            *killed_in.entry(died_in).or_default() += 1;
        }
        println!("killed in: {killed_in:?}");
        let amid: usize =
            killed_in.iter().filter(|(moment, _)| !moment.ends_with("over")).map(|(_, count)| count).sum();
        // How many depends on how fast the machine is: on a quick one most operations are over before.
        assert!(amid > 0, "none of them hit anything: {killed_in:?}");

        world.publish(chunks.flatten().cloned()).await;
        let survivor = world.start_with(&SETTINGS).await;
        door.send_replace(Some(format!("http://{}", survivor.address)));
        until("nothing is under way", PATIENCE, || async { (!is_running(&world).await).then_some(()) }).await;
        let ended = "select count(*) from operations where state <> 'done'";
        assert_eq!(world.number(ended).await, 0, "each did what was asked");
        assert_eq!(world.number("select count(*) from view_builds where active").await, 1);
        until("every build has its schema, and every schema its build", PATIENCE, || async {
            (schemas(&world).await == builds(&world).await).then_some(())
        })
        .await;
        // What is kept goes, too, and is all that was there.
        world.sql.batch_execute("update view_builds set kept_until = now() where not active").await.unwrap();
        until("only the active build is there", PATIENCE, || async {
            (schemas(&world).await.len() == 1).then_some(())
        })
        .await;
        assert_eq!(survivor.json("/ops/views").await["items"][0]["leftovers"], json!([]));
        load.assert_settled(&world).await;
        door.send_replace(None);
        enough.cancel();
        survivor.stop().await;
    };
    let (reads, ()) = tokio::join!(read_on(&door, &orders, &enough), killing);
    println!("{reads} reads");
    assert!(reads > kills, "{reads}");
}
