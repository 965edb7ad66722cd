//! The stream manager with two hundred streams that run: what a round of comparing what is wanted with what runs costs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, stream};
use rdkafka::ClientConfig;
use serde::Serialize;
use serde_json::{Value, json};

use crate::fleet::{Fleet, PARTITIONS};
use crate::processes::{load_average, memory_mb};
use crate::results::Better::Less;
use crate::section::{Lines, Section};
use crate::stage::Stage;

const TOPIC: &str = "bench.orders.manager";
const DATABASE: &str = "bench_manager";
const STREAMS: usize = 200;
/// Deployed at once.
const AT_ONCE: usize = 4;
/// Milliseconds from one round to the next: the least that can be set, so that there are many.
const INTERVAL_MS: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(300);

/// One round of the benchmark.
#[derive(Debug, Clone, Serialize)]
pub struct Managed {
    /// Rounds that were watched.
    pub rounds: f64,
    /// Calls of the engine in each.
    pub calls: f64,
    /// How long each took, without the pause behind it.
    pub seconds: f64,
    /// CPU of the service, in each.
    pub client_ms: f64,
    /// CPU of Postgres, in each.
    pub postgres_ms: f64,
    /// Seconds until all were deployed, four at a time.
    pub deployed_s: f64,
    /// Resident memory.
    pub rss_mb: f64,
    /// Load average before.
    pub load_average: f64,
}

/// How it is reported.
pub fn section(runs: &[Managed]) -> Section {
    Lines::of("stream manager, 200 streams that run", runs)
        .judged(Less, "calls of the engine in a round (aim: 2)", "calls", |run| run.calls)
        .informs(Less, "a round", "ms", |run| run.seconds * 1_000.0)
        .judged(Less, "CPU of the service", "ms/round", |run| run.client_ms)
        .judged(Less, "CPU of Postgres", "ms/round", |run| run.postgres_ms)
        .informs(Less, "all of them deployed", "s", |run| run.deployed_s)
        .judged(Less, "RSS", "MB", |run| run.rss_mb)
        .context("rounds watched", "", |run| run.rounds)
        .context("load average before", "", |run| run.load_average)
        .done()
}

/// One round, by processes of its own. The engine's queries read nothing.
pub async fn run(fleet: &Fleet, seconds: f64) -> Result<Managed> {
    let load_average = load_average()?;
    let kafka = ClientConfig::from_iter([("bootstrap.servers".to_owned(), fleet.kafka.bootstrap())]);
    let dead_letters = format!("{TOPIC}.dlq");
    streamview_lab::seed::create_topics(&kafka, &[(TOPIC, PARTITIONS), (&dead_letters, 1)]).await?;
    let interval = INTERVAL_MS.to_string();
    let settings = [("STREAMVIEW_MANAGER__RECONCILE_INTERVAL_MS", interval.as_str())];
    let stage = Stage::start(fleet, (DATABASE, TOPIC), true, &settings).await?;
    let started = Instant::now();
    let deployed: Vec<Result<()>> =
        stream::iter(0..STREAMS).map(|number| deploy(&stage, number)).buffer_unordered(AT_ONCE).collect().await;
    deployed.into_iter().collect::<Result<()>>()?;
    until_settled(&stage).await?;
    let deployed_s = started.elapsed().as_secs_f64();

    let watched = fleet.watched(std::slice::from_ref(&stage.service))?;
    let (rounds, calls) = counted(&stage).await?;
    let (before, started) = (watched.cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (cpu, elapsed) = (watched.cpu()?.since(before), started.elapsed().as_secs_f64());
    let (last_round, last_call) = counted(&stage).await?;
    let (rounds, calls) = (last_round - rounds, last_call - calls);
    ensure!(rounds > 0.0, "no round in {elapsed:.0} s\n{}", stage.service.log_tail());
    let (rss_mb, _) = memory_mb(stage.service.pid())?;
    stage.end(fleet).await?;
    Ok(Managed {
        rounds,
        calls: calls / rounds,
        seconds: elapsed / rounds - INTERVAL_MS as f64 / 1_000.0,
        client_ms: cpu.client / rounds * 1_000.0,
        postgres_ms: cpu.postgres / rounds * 1_000.0,
        deployed_s,
        rss_mb,
        load_average,
    })
}

async fn deploy(stage: &Stage, number: usize) -> Result<()> {
    let new = json!({ "name": format!("stream {number}"), "sqlScript": "SELECT ORDERID, STATUS FROM orders" });
    let made = stage.call("POST", "/api/streams", &new).await?;
    let path = made["href"].as_str().context("a stream has a path")?;
    stage.call("POST", &format!("{path}/deploy"), &json!({})).await?;
    Ok(())
}

async fn until_settled(stage: &Stage) -> Result<()> {
    let started = Instant::now();
    loop {
        let page = stage.call("GET", "/api/streams?state=running&pageSize=200", &Value::Null).await?;
        let items = page["items"].as_array().context("a page has items")?;
        if items.len() == STREAMS && items.iter().all(|item| item["isSettled"] == true) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{} of {STREAMS} run\n{}", items.len(), stage.service.log_tail());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Rounds so far, each of which looks once at what runs, and calls of the engine.
async fn counted(stage: &Stage) -> Result<(f64, f64)> {
    let text = stage.service.metrics().await?;
    let series = text.lines().filter(|line| line.starts_with("streamview_engine_calls_total{"));
    let (mut rounds, mut calls) = (0.0, 0.0);
    for line in series {
        let count: f64 = line.rsplit(' ').next().context("a series has a value")?.parse()?;
        calls += count;
        if line.contains("call=\"observe\"") {
            rounds += count;
        }
    }
    Ok((rounds, calls))
}
