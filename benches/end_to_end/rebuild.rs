//! A rebuild under load: events come at a fixed rate and readers read all the time, while the view is rebuilt, cut over,
//! rolled back and cut over again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::backlog::Backlog;
use crate::fleet::{BACKLOG_TOPIC, Fleet, Service};
use crate::http::Connection;
use crate::latency::Latency;
use crate::processes::{Cpu, load_average};
use crate::publish::Publisher;
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};
use crate::workload::{EVENTS_PER_ORDER, Spaced, order_id};

/// Events a second meanwhile.
const RATE: u64 = 2_000;
/// Connections that read all the time.
const READERS: u64 = 2;
/// Between two reads of one connection.
const READ_EVERY: Duration = Duration::from_millis(2);
/// How long the live traffic alone is watched before: what it costs is not the rebuild's.
const ALONE: Duration = Duration::from_secs(5);
/// Between two looks at the operation.
const LOOK: Duration = Duration::from_millis(20);
/// A rebuild that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a rebuild took.
#[derive(Debug, Clone, Serialize)]
pub struct Rebuild {
    /// The backlog of the same run, applied live into an empty database: what the loading is compared with.
    pub backlog: Backlog,
    /// Records in the log when the loading began.
    pub records: i64,
    /// Seconds in each phase.
    pub loading_s: f64,
    /// See above.
    pub indexing_s: f64,
    /// See above.
    pub catching_up_s: f64,
    /// See above.
    pub comparing_s: f64,
    /// From asking to done.
    pub seconds: f64,
    /// Records per second of loading and indexing.
    pub records_per_s: f64,
    /// CPU microseconds per record of the service in that time, beyond what the live traffic cost before.
    pub client_us: f64,
    /// The same of Postgres.
    pub postgres_us: f64,
    /// From asking for the rollback to done, in milliseconds.
    pub rollback_ms: f64,
    /// The same of going forward again.
    pub forward_ms: f64,
    /// Reads meanwhile, none of which failed or went back.
    pub reads: Latency,
    /// How many these were.
    pub read: usize,
    /// Load average before.
    pub load_average: f64,
}

/// How rebuilds are reported.
pub fn section(runs: &[Rebuild]) -> Section {
    Lines::of("rebuild under 2,000 events/s and constant reads", runs)
        .judged(More, "records/s of loading and indexing, ratio to the backlog", "", |run| {
            run.records_per_s / run.backlog.events_per_s
        })
        .judged(Less, "CPU per record of these, ratio to the backlog", "", |run| {
            (run.client_us + run.postgres_us) / run.backlog.us()
        })
        .informs(More, "records", "/s", |run| run.records_per_s)
        .informs(Less, "CPU of the service", "us/record", |run| run.client_us)
        .informs(Less, "CPU of Postgres", "us/record", |run| run.postgres_us)
        .informs(Less, "loading", "s", |run| run.loading_s)
        .informs(Less, "indexing", "s", |run| run.indexing_s)
        .informs(Less, "catching up", "s", |run| run.catching_up_s)
        .informs(Less, "comparing", "s", |run| run.comparing_s)
        .informs(Less, "all of it", "s", |run| run.seconds)
        .informs(Less, "rollback", "ms", |run| run.rollback_ms)
        .informs(Less, "forward again", "ms", |run| run.forward_ms)
        .informs(Less, "reads meanwhile, p99", "ms", |run| run.reads.p99_ms)
        .informs(Less, "reads meanwhile, greatest", "ms", |run| run.reads.max_ms)
        .context("reads", "", |run| run.read as f64)
        .context("load average before", "", |run| run.load_average)
        .done()
}

/// Rebuilds the view that the service serves, under load.
pub async fn run(fleet: &Fleet, service: &Service, orders: u64, backlog: Backlog) -> Result<Rebuild> {
    let load_average = load_average()?;
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = publish(fleet, orders, Arc::clone(&stop))?;
    let reading: Vec<_> =
        (0..READERS).map(|seed| tokio::spawn(read(service.port, orders, seed, Arc::clone(&stop)))).collect();
    let rebuilt = rebuild(fleet, service).await;
    stop.store(true, Ordering::Relaxed);
    publishing.await.context("the publisher panicked")??;
    let mut latencies = Vec::new();
    for reader in reading {
        latencies.extend(reader.await.context("a reader panicked")??);
    }
    let Rebuilt { operation, rollback, forward, cpu } = rebuilt?;
    let (records, seconds) = (operation.progress.total.context("no total")?, operation.seconds_of());
    let of = |phase: &str| seconds.get(phase).copied().unwrap_or_default();
    let loading = of("loading") + of("indexing");
    Ok(Rebuild {
        backlog,
        records,
        loading_s: of("loading"),
        indexing_s: of("indexing"),
        catching_up_s: of("catching_up"),
        comparing_s: of("comparing"),
        seconds: seconds.values().sum(),
        records_per_s: records as f64 / loading,
        client_us: cpu.client / records as f64 * 1e6,
        postgres_us: cpu.postgres / records as f64 * 1e6,
        rollback_ms: rollback.as_secs_f64() * 1e3,
        forward_ms: forward.as_secs_f64() * 1e3,
        read: latencies.len(),
        reads: Latency::of(latencies),
        load_average,
    })
}

/// What is read of an operation.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    state: String,
    phase: String,
    progress: Progress,
    phases: Vec<Begun>,
    comparison: Option<serde_json::Value>,
    error: Option<serde_json::Value>,
    href: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Progress {
    total: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
struct Begun {
    phase: String,
    at: jiff::Timestamp,
}

impl Operation {
    fn seconds_of(&self) -> HashMap<&str, f64> {
        let pairs = self.phases.iter().zip(self.phases.iter().skip(1));
        pairs.map(|(this, next)| (this.phase.as_str(), next.at.duration_since(this.at).as_secs_f64())).collect()
    }
}

struct Rebuilt {
    operation: Operation,
    rollback: Duration,
    forward: Duration,
    /// Of loading and indexing, beyond the live traffic's.
    cpu: Cpu,
}

async fn rebuild(fleet: &Fleet, service: &Service) -> Result<Rebuilt> {
    let watched = fleet.watched(std::slice::from_ref(service))?;
    let (before, since) = (watched.cpu()?, Instant::now());
    tokio::time::sleep(ALONE).await;
    let (alone, alone_s) = (watched.cpu()?.since(before), since.elapsed().as_secs_f64());

    let mut connection = Connection::open(service.port).await?;
    let asked = ask(&mut connection, "/ops/views/rebuild").await?;
    let (mut began, mut loaded) = (None, None);
    let operation = until_done(&mut connection, &asked, |operation| {
        match operation.phase.as_str() {
            "preflight" => {}
            "loading" | "indexing" => {
                began.get_or_insert((watched.cpu()?, Instant::now()));
            }
            _ if loaded.is_none() => loaded = Some((watched.cpu()?, Instant::now())),
            _ => {}
        }
        Ok(())
    })
    .await?;
    let ((from, from_at), (to, to_at)) = began.zip(loaded).context("the loading was not seen")?;
    let share = (to_at - from_at).as_secs_f64() / alone_s;
    let mut cpu = to.since(from);
    cpu.client -= alone.client * share;
    cpu.postgres -= alone.postgres * share;
    let comparison = operation.comparison.clone().context("nothing was compared")?;
    for kind in ["different", "onlyOld", "onlyNew"] {
        ensure!(comparison[kind] == 0, "the builds differ: {comparison}");
    }
    let mut switched = async || {
        let at = Instant::now();
        let asked = ask(&mut connection, "/ops/views/orders/rollback").await?;
        until_done(&mut connection, &asked, |_| Ok(())).await?;
        anyhow::Ok(at.elapsed())
    };
    Ok(Rebuilt { operation, rollback: switched().await?, forward: switched().await?, cpu })
}

async fn ask(connection: &mut Connection, target: &str) -> Result<String> {
    let answer = connection.post(target, r#"{"reason":"benchmark"}"#).await?;
    let text = String::from_utf8_lossy(answer.body).into_owned();
    ensure!(answer.status == 202, "POST {target} answered {}: {text}", answer.status);
    Ok(serde_json::from_str::<Operation>(&text)?.href)
}

async fn until_done(
    connection: &mut Connection,
    href: &str,
    mut look: impl FnMut(&Operation) -> Result<()>,
) -> Result<Operation> {
    let started = Instant::now();
    loop {
        let operation: Operation = serde_json::from_slice(connection.get(href).await?.body)?;
        look(&operation)?;
        match operation.state.as_str() {
            "running" if operation.phase == "ready" => bail!("the builds differ: {:?}", operation.comparison),
            "running" => ensure!(started.elapsed() < PATIENCE, "{href} takes too long: {operation:?}"),
            "done" => return Ok(operation),
            state => bail!("{href} is {state}: {:?}", operation.error),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Publishes further orders behind those of the backlog.
fn publish(fleet: &Fleet, orders: u64, stop: Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let mut publisher = Publisher::open(&fleet.kafka.bootstrap(), BACKLOG_TOPIC, 1)?;
    Ok(tokio::task::spawn_blocking(move || {
        let mut events = Spaced::new(2 * orders, u64::MAX / 8, EVENTS_PER_ORDER);
        while !stop.load(Ordering::Relaxed) {
            publisher.pace(&mut events, (RATE, 0.5), u64::MAX, |_, _| Ok(()))?;
        }
        publisher.flush()
    }))
}

/// Reads orders of the backlog and new ones, each as far as it was seen before or farther.
async fn read(port: u16, orders: u64, seed: u64, stop: Arc<AtomicBool>) -> Result<Vec<Duration>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Order {
        last_event_sequence: i64,
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut connection, mut seen) = (Connection::open(port).await?, HashMap::<u64, i64>::new());
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(READ_EVERY).await;
        let is_new = random.bool();
        let order = if is_new { 2 * orders + random.u64(..2_000) } else { random.u64(..orders) };
        let at = Instant::now();
        let answer = connection.get(&format!("/orders/{}", order_id(order))).await?;
        latencies.push(at.elapsed());
        let known = seen.get(&order).copied();
        match answer.status {
            200 => {
                let sequence = serde_json::from_slice::<Order>(answer.body)?.last_event_sequence;
                ensure!(known.is_none_or(|known| known <= sequence), "order {order} went back to {sequence}");
                seen.insert(order, sequence);
            }
            404 if is_new && known.is_none() => {}
            status => bail!("GET order {order} answered {status}"),
        }
    }
    Ok(latencies)
}
