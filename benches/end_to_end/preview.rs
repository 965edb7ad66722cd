//! Rows that people watch: how many a second a preview takes in, how soon a client sees them, what twenty queries and two hundred
//! watchers need, and what an idle connection to the hub costs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use crate::fleet::{Fleet, PARTITIONS};
use crate::latency::Latency;
use crate::processes::{forget_peak, load_average, memory_mb};
use crate::publish::Publisher;
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};
use crate::stage::Stage;
use crate::watchers::{Rows, Seen, idle_connection};
use crate::workload::Spaced;

const TOPIC: &str = "bench.orders.preview";
/// A topic that the service does not read.
const WARM_UP: &str = "bench.warm-up";
const DATABASE: &str = "bench_preview";
/// Rows that come at once.
const FLOOD: u64 = 400_000;
/// Rows a second that are timed: fewer than a client may be shown, so that it is shown all.
const RATE: u64 = 1_000;
const QUERIES: u64 = 20;
const WATCHERS: u64 = 200;
const IDLE: u64 = 2_000;
/// After so long without an end something stands still.
const PATIENCE: Duration = Duration::from_secs(120);

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// Rows of a flood that were taken in a second: shown, or counted as not shown.
    pub rows_per_s: f64,
    /// Rows a second of a bare consumer that reads the same topic and does nothing with them.
    pub bare_per_s: f64,
    /// CPU microseconds of the service per row of the flood.
    pub us_per_row: f64,
    /// From the producer's send to the one client.
    pub seen: Latency,
    /// The same with all queries and watchers.
    pub seen_in_crowd: Latency,
    /// Rows that the watchers were shown, of those that came.
    pub crowd_shown: f64,
    /// Rows that each query gave a second.
    pub query_rows_per_s: f64,
    /// CPU of the service with all of them, in percent of one core.
    pub crowd_cpu_percent: f64,
    /// Highest resident memory with all of them.
    pub crowd_peak_mb: f64,
    /// Before there was anybody.
    pub before_mb: f64,
    /// Bytes of the process for each idle connection to the hub.
    pub idle_bytes: f64,
    /// Load average before.
    pub load_average: f64,
}

/// How it is reported.
pub fn section(runs: &[Preview]) -> Section {
    Lines::of("rows that people watch", runs)
        .informs(More, "taken in from Kafka (aim: 50,000)", "rows/s", |run| run.rows_per_s)
        .context("a bare consumer of the same rows", "rows/s", |run| run.bare_per_s)
        .judged(More, "preview / bare consumer", "", |run| run.rows_per_s / run.bare_per_s)
        .judged(Less, "CPU of the service", "us/row", |run| run.us_per_row)
        .informs(Less, "1,000 rows/s, produce to client: p50", "ms", |run| run.seen.p50_ms)
        .informs(Less, "1,000 rows/s, produce to client: p99 (aim: 100)", "ms", |run| run.seen.p99_ms)
        .informs(Less, "the same with 20 queries, 200 watchers: p99", "ms", |run| run.seen_in_crowd.p99_ms)
        .informs(More, "rows shown to the 200, of those that came", "", |run| run.crowd_shown)
        .informs(More, "rows of each query", "rows/s", |run| run.query_rows_per_s)
        .informs(Less, "CPU of the service with all of them", "% of a core", |run| run.crowd_cpu_percent)
        .judged(Less, "peak RSS with all of them (aim: 256)", "MB", |run| run.crowd_peak_mb)
        .context("RSS before", "MB", |run| run.before_mb)
        .judged(Less, "an idle connection to the hub (aim: 20,480)", "bytes", |run| run.idle_bytes)
        .context("load average before", "", |run| run.load_average)
        .done()
}

/// One round, by processes of its own.
pub async fn run(fleet: &Fleet, seconds: f64) -> Result<Preview> {
    let load_average = load_average()?;
    let kafka = ClientConfig::from_iter([("bootstrap.servers".to_owned(), fleet.kafka.bootstrap())]);
    let dead_letters = format!("{TOPIC}.dlq");
    streamview_lab::seed::create_topics(&kafka, &[(TOPIC, PARTITIONS), (&dead_letters, 1), (WARM_UP, 1)]).await?;
    tokio::task::block_in_place(|| warm_up(&fleet.kafka.bootstrap()))?;
    let stage = Stage::start(fleet, (DATABASE, TOPIC), false, &[]).await?;
    let idle_bytes = idle_connections(&stage).await?;
    stage.end(fleet).await?;

    let stage = Stage::start(fleet, (DATABASE, TOPIC), false, &[]).await?;
    let mut publisher = Publisher::open(&fleet.kafka.bootstrap(), TOPIC, 1)?;
    // One event of each order, so that its key is a row's name.
    let mut events = Spaced::new(0, u64::MAX / 8, 1);
    let (before_mb, _) = memory_mb(stage.service.pid())?;
    let seen = timed(&stage, (&mut publisher, &mut events), seconds).await?;
    let crowd = Crowd::gather(&stage).await?;
    forget_peak(stage.service.pid())?;
    let watched = fleet.watched(std::slice::from_ref(&stage.service))?;
    let (before, started) = (watched.cpu()?, Instant::now());
    let seen_in_crowd = timed(&stage, (&mut publisher, &mut events), seconds).await?;
    let (cpu, elapsed) = (watched.cpu()?.since(before), started.elapsed().as_secs_f64());
    let (_, crowd_peak_mb) = memory_mb(stage.service.pid())?;
    let (shown, query_rows) = crowd.leave().await?;
    let came = (RATE as f64 * seconds).floor();

    let watched = fleet.watched(std::slice::from_ref(&stage.service))?;
    let before = watched.cpu()?;
    let rows_per_s = flood(&stage, (&mut publisher, &mut events)).await?;
    let us_per_row = watched.cpu()?.since(before).client / FLOOD as f64 * 1e6;
    stage.end(fleet).await?;
    let bare_per_s = tokio::task::block_in_place(|| bare(&fleet.kafka.bootstrap()))?;
    Ok(Preview {
        rows_per_s,
        bare_per_s,
        us_per_row,
        seen,
        seen_in_crowd,
        crowd_shown: shown / WATCHERS as f64 / came,
        query_rows_per_s: query_rows / QUERIES as f64 / elapsed,
        crowd_cpu_percent: cpu.client / elapsed * 100.0,
        crowd_peak_mb,
        before_mb,
        idle_bytes,
        load_average,
    })
}

/// A broker that has just been started answers its first records half a second late, which would be the p99 of the first round.
fn warm_up(bootstrap: &str) -> Result<()> {
    let mut publisher = Publisher::open(bootstrap, WARM_UP, 1)?;
    publisher.pace(&mut Spaced::new(0, u64::MAX / 8, 1), (RATE, 1.0), 1, |_, _| Ok(()))?;
    publisher.flush()?;
    read(bootstrap, (WARM_UP, 1), RATE).map(drop)
}

fn watch_target() -> String {
    format!("/api/topics/{TOPIC}/rows")
}

/// Bytes of the process for each of many connections that are opened and do nothing.
async fn idle_connections(stage: &Stage) -> Result<f64> {
    let (port, process) = (stage.service.port, stage.service.pid());
    let mut there = Vec::new();
    // What is made once for all is made.
    for _ in 0..50 {
        there.push(idle_connection(port).await?);
    }
    let (before, _) = memory_mb(process)?;
    for _ in 0..IDLE {
        there.push(idle_connection(port).await?);
    }
    let (after, _) = memory_mb(process)?;
    Ok((after - before) * 1024.0 * 1024.0 / IDLE as f64)
}

/// Publishes a flood while one client watches; gives the rows a second until all of it is shown, or counted as not shown.
async fn flood(stage: &Stage, (publisher, events): (&mut Publisher, &mut Spaced)) -> Result<f64> {
    let mut rows = Rows::open(stage.service.port, &watch_target()).await?;
    let counting = tokio::spawn(async move {
        let mut taken = 0;
        while taken < FLOOD {
            rows.next(|seen| {
                taken += match seen {
                    Seen::Row(_) => 1,
                    Seen::Dropped(rows) => rows,
                }
            })
            .await?;
        }
        anyhow::Ok(Instant::now())
    });
    let started = Instant::now();
    // As fast as it goes: no producer here keeps that pace.
    tokio::task::block_in_place(|| {
        publisher.pace(events, (FLOOD, 1.0), u64::MAX, |_, _| Ok(()))?;
        publisher.flush()
    })?;
    let ended = tokio::time::timeout(PATIENCE, counting).await.context("rows of the flood are missing")?;
    let ended = ended.context("the client panicked")??;
    Ok(FLOOD as f64 / ended.duration_since(started).as_secs_f64())
}

/// Publishes at the rate that one client is shown in whole; gives how long each row took to it.
async fn timed(stage: &Stage, (publisher, events): (&mut Publisher, &mut Spaced), seconds: f64) -> Result<Latency> {
    let due = (RATE as f64 * seconds) as usize;
    let mut rows = Rows::open(stage.service.port, &watch_target()).await?;
    let reading = tokio::spawn(async move {
        let (mut seen_at, mut lost) = (Vec::with_capacity(due), 0);
        while seen_at.len() + (lost as usize) < due {
            rows.next(|seen| match seen {
                Seen::Row(row) => seen_at.push((order(row), Instant::now())),
                Seen::Dropped(rows) => lost += rows,
            })
            .await?;
        }
        anyhow::Ok((seen_at, lost))
    });
    let mut sent = HashMap::with_capacity(due);
    tokio::task::block_in_place(|| {
        publisher.pace(events, (RATE, seconds), 1, |event, at| {
            sent.insert(event.order, at);
            Ok(())
        })?;
        publisher.flush()
    })?;
    let reading = tokio::time::timeout(PATIENCE, reading).await.context("rows are missing")?;
    let (seen_at, lost) = reading.context("the client panicked")??;
    ensure!(lost * 100 <= due as u64, "{lost} of {due} rows were not shown to a client that takes them");
    let mut latencies = Vec::with_capacity(due);
    for (order, at) in seen_at {
        let order = order.context("a row without its order")?;
        let sent = sent.get(&order).with_context(|| format!("order {order} was not sent now"))?;
        latencies.push(at.duration_since(*sent));
    }
    Ok(Latency::of(latencies))
}

/// The number of a row's order.
fn order(row: &str) -> Option<u64> {
    let number = row.split_once("\"key\":\"order-")?.1;
    number[..number.find('"')?].parse().ok()
}

/// Everybody at once.
struct Crowd {
    tasks: JoinSet<Result<()>>,
    shown: Arc<AtomicU64>,
    query_rows: Arc<AtomicU64>,
}

impl Crowd {
    async fn gather(stage: &Stage) -> Result<Crowd> {
        let mut crowd = Crowd { tasks: JoinSet::new(), shown: Arc::default(), query_rows: Arc::default() };
        for _ in 0..QUERIES {
            let query = stage.call("POST", "/api/queries", &json!({ "sqlScript": "SELECT * FROM orders" })).await?;
            let id = query["id"].as_str().context("a query has an id")?;
            let rows = Rows::open(stage.service.port, &format!("/api/queries/{id}/rows")).await?;
            crowd.tasks.spawn(count(rows, Arc::clone(&crowd.query_rows)));
        }
        for _ in 0..WATCHERS {
            let rows = Rows::open(stage.service.port, &watch_target()).await?;
            crowd.tasks.spawn(count(rows, Arc::clone(&crowd.shown)));
        }
        Ok(crowd)
    }

    /// Rows that watchers and queries were given.
    async fn leave(mut self) -> Result<(f64, f64)> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended.context("a client panicked")??;
        }
        self.tasks.shutdown().await;
        Ok((self.shown.load(Ordering::Relaxed) as f64, self.query_rows.load(Ordering::Relaxed) as f64))
    }
}

async fn count(mut rows: Rows, shown: Arc<AtomicU64>) -> Result<()> {
    loop {
        let mut came = 0;
        rows.next(|seen| came += u64::from(matches!(seen, Seen::Row(_)))).await?;
        shown.fetch_add(came, Ordering::Relaxed);
    }
}

/// What Kafka itself gives: as many rows of the topic as a flood has.
fn bare(bootstrap: &str) -> Result<f64> {
    Ok(FLOOD as f64 / read(bootstrap, (TOPIC, PARTITIONS), FLOOD)?.as_secs_f64())
}

/// How long a consumer that does nothing with them takes for so many rows.
fn read(bootstrap: &str, (topic, partitions): (&str, i32), rows: u64) -> Result<Duration> {
    let config = [("bootstrap.servers", bootstrap), ("group.id", "unused"), ("enable.auto.commit", "false")];
    let consumer: BaseConsumer =
        ClientConfig::from_iter(config.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .create()
            .context("a bare consumer")?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let started = Instant::now();
    consumer.assign(&list)?;
    for _ in 0..rows {
        consumer.poll(PATIENCE).context("rows are missing")?.context("reading")?;
    }
    Ok(started.elapsed())
}
