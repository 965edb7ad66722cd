//! Backlog: the topic is full, the tables are empty, the service starts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio_postgres::Client;

use crate::fleet::{Fleet, Service};
use crate::following::{Followers, Mix, NOBODY};
use crate::processes::{Cpu, Watched, load_average, memory_mb};
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};
use crate::waiting::Waiters;
use crate::workload::Expected;

/// What a backlog run took.
#[derive(Debug, Clone, Serialize)]
pub struct Backlog {
    /// Events in the topic.
    pub events: i64,
    /// From launching the process to its first committed batch.
    pub launch_to_first_row_s: f64,
    /// From the first committed batch to the last.
    pub seconds: f64,
    /// Events committed in that time, per second.
    pub events_per_s: f64,
    /// The same after the first quarter of the events, when whatever came with the launch is over.
    pub settled_events_per_s: f64,
    /// CPU microseconds of service and Postgres per event in that part.
    pub settled_us: f64,
    /// CPU microseconds per event of the service, launch included.
    pub client_us: f64,
    /// The same of Postgres: all its processes.
    pub postgres_us: f64,
    /// The same of the broker.
    pub kafka_us: f64,
    /// Cores that processes outside this benchmark used meanwhile.
    pub others_cores: f64,
    /// Highest resident memory of the service, added up over its instances.
    pub peak_rss_mb: f64,
    /// WAL written per event.
    pub wal_bytes: f64,
    /// Events per committed batch, on average.
    pub batch_events: f64,
    /// Load average before.
    pub load_average: f64,
}

/// What a backlog run has to do.
#[derive(Debug, Clone)]
pub struct Task<'a> {
    /// A database that does not exist yet; the consumer group is called the same.
    pub database: String,
    /// The topic that is full.
    pub topic: &'a str,
    /// What the views must hold in the end.
    pub expected: &'a Expected,
    /// SQL to run in the empty database.
    pub sql: Option<&'a str>,
    /// Instances of the service that share the work.
    pub instances: usize,
    /// Requests that wait for their write meanwhile, all on the first instance.
    pub waiters: usize,
    /// Who follows changes meanwhile, likewise.
    pub followers: Mix,
    /// Further settings of the service.
    pub settings: Vec<(&'static str, String)>,
}

impl<'a> Task<'a> {
    /// One instance, nobody waits.
    pub fn new(database: &str, topic: &'a str, expected: &'a Expected) -> Task<'a> {
        let (database, settings) = (database.to_owned(), Vec::new());
        Task { database, topic, expected, sql: None, instances: 1, waiters: 0, followers: NOBODY, settings }
    }
}

/// How backlog runs are reported.
pub fn section(runs: &[Backlog]) -> Section {
    Lines::of("backlog", runs)
        .informs(Less, "from launch to first rows", "s", |run| run.launch_to_first_row_s)
        .informs(Less, "first to last row", "s", |run| run.seconds)
        .informs(More, "events", "/s", |run| run.events_per_s)
        .informs(More, "events, after the first quarter", "/s", |run| run.settled_events_per_s)
        .judged(Less, "CPU of the service", "us/event", |run| run.client_us)
        .judged(Less, "CPU of Postgres", "us/event", |run| run.postgres_us)
        .judged(Less, "CPU of both", "us/event", Backlog::us)
        .informs(Less, "CPU of the broker", "us/event", |run| run.kafka_us)
        .judged(Less, "peak RSS of the service", "MB", |run| run.peak_rss_mb)
        .judged(Less, "WAL", "B/event", |run| run.wal_bytes)
        .context("batch", "events", |run| run.batch_events)
        .context("used by others", "cores", |run| run.others_cores)
        .context("load average before", "", |run| run.load_average)
        .done()
}

impl Backlog {
    /// CPU microseconds per event, service and Postgres.
    pub fn us(&self) -> f64 {
        self.client_us + self.postgres_us
    }
}

/// Runs it and leaves nothing behind.
pub async fn run_and_discard(fleet: &Fleet, task: &Task<'_>) -> Result<Backlog> {
    let (backlog, services) = run(fleet, task).await?;
    fleet.discard(services, &task.database).await?;
    Ok(backlog)
}

/// Runs it once and checks the result. Leaves the services running.
pub async fn run(fleet: &Fleet, task: &Task<'_>) -> Result<(Backlog, Vec<Service>)> {
    let (database, expected) = (task.database.as_str(), task.expected);
    fleet.create_database(database).await?;
    let client = fleet.connect(database).await?;
    if let Some(sql) = task.sql {
        client.batch_execute(sql).await.context("the SQL before the backlog")?;
    }
    client.batch_execute("checkpoint").await?;
    let (load, wal_before) = (load_average()?, wal_position(&client).await?);
    let before = fleet.watched(&[])?.cpu()?;

    let launched = Instant::now();
    let mut services = Vec::new();
    for _ in 0..task.instances {
        services.push(fleet.serve_with((database, task.topic, database), &task.settings)?);
    }
    let watched = fleet.watched(&services)?;
    let mut waiters = Waiters::none();
    if task.waiters > 0 {
        services[0].wait_for_http()?;
        waiters = Waiters::start(services[0].port, task.waiters, expected.orders as u64);
    }
    let mut followers = None;
    if task.followers != NOBODY {
        services[0].wait_for_http()?;
        followers = Some(Followers::start(services[0].port, task.followers).await?);
    }
    let Progress { first, settled, last } = watch(&client, &mut services, &watched, expected.events).await?;
    let elapsed = launched.elapsed().as_secs_f64();
    let mut peak_rss_mb = 0.0;
    for service in &services {
        peak_rss_mb += memory_mb(service.pid())?.1;
    }
    waiters.check(&services[0]).await?;
    if let Some(followers) = followers {
        followers.check(&services[0]).await?;
    }
    let batch_events = batch_events(&services).await?;
    check(&client, expected).await?;

    let (cpu, settled_cpu) = (last.cpu.since(before), last.cpu.since(settled.cpu));
    let events = expected.events as f64;
    let backlog = Backlog {
        events: expected.events,
        launch_to_first_row_s: (first.at - launched).as_secs_f64(),
        seconds: (last.at - first.at).as_secs_f64(),
        events_per_s: last.rate_since(first),
        settled_events_per_s: last.rate_since(settled),
        settled_us: (settled_cpu.client + settled_cpu.postgres) / (last.applied - settled.applied) as f64 * 1e6,
        client_us: cpu.client / events * 1e6,
        postgres_us: cpu.postgres / events * 1e6,
        kafka_us: cpu.kafka / events * 1e6,
        others_cores: cpu.others() / elapsed,
        peak_rss_mb,
        wal_bytes: (wal_position(&client).await? - wal_before) as f64 / events,
        batch_events,
        load_average: load,
    };
    eprintln!("{database}: {:.0} events/s, {:.1} us", backlog.events_per_s, backlog.us());
    Ok((backlog, services))
}

/// How far it was at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    applied: i64,
    cpu: Cpu,
}

impl Sample {
    /// Events a second in between.
    fn rate_since(self, earlier: Sample) -> f64 {
        (self.applied - earlier.applied) as f64 / (self.at - earlier.at).as_secs_f64()
    }
}

/// The moments that are measured: looking costs CPU too.
struct Progress {
    /// The first committed rows.
    first: Sample,
    /// A quarter of the events.
    settled: Sample,
    /// All of them.
    last: Sample,
}

/// Waits until all events are committed.
async fn watch(client: &Client, services: &mut [Service], watched: &Watched, events: i64) -> Result<Progress> {
    let statement = client.prepare("select coalesce(sum(next_offset), 0)::bigint from projection_progress").await?;
    let (mut first, mut settled) = (None, None);
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        let applied: i64 = client.query_one(&statement, &[]).await?.try_get(0)?;
        let sample = || anyhow::Ok(Sample { at: Instant::now(), applied, cpu: watched.cpu()? });
        if applied > seen {
            (seen, moved) = (applied, Instant::now());
            if first.is_none() {
                first = Some(sample()?);
            }
            if settled.is_none() && 4 * applied >= events {
                settled = Some(sample()?);
            }
        }
        if applied >= events {
            let (Some(first), Some(settled)) = (first, settled) else { bail!("no events to wait for") };
            ensure!(settled.applied < events, "the backlog is too short to be measured");
            return Ok(Progress { first, settled, last: sample()? });
        }
        for service in &mut *services {
            service.check_alive()?;
        }
        if moved.elapsed() > Duration::from_secs(60) {
            let logs: Vec<String> = services.iter().map(Service::log_tail).collect();
            bail!("no progress for a minute at {applied} of {events} events\n{}", logs.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Fails unless the views are what the oracle says.
pub async fn check(client: &Client, expected: &Expected) -> Result<()> {
    let sql = "select (select count(*) from orders_view), (select count(*) from order_items_view), \
               (select coalesce(sum(applied), 0)::bigint from projection_progress), \
               (select coalesce(sum(last_event_sequence), 0)::bigint from orders_view), \
               (select coalesce(sum(total_net * 100), 0)::bigint from orders_view), \
               (select count(*) from order_events_view where effect = 'applied')";
    let row = client.query_one(sql, &[]).await?;
    let (orders, items, events): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (sequences, net_cents, ledger): (i64, i64, i64) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    // Whether a ledger is kept is the build's own word: `--history` and the environment can say so.
    let rules = client.query_one("select coalesce(rules ->> 'history', '') from view_builds where active", &[]).await?;
    let kept = if rules.try_get::<_, String>(0)? == "off" { 0 } else { events };
    ensure!(ledger == kept, "{ledger} ledger rows of {events} events");
    let mut statuses = std::collections::BTreeMap::new();
    for row in client.query("select coalesce(status, ''), count(*) from orders_view group by 1", &[]).await? {
        statuses.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let found = Expected { orders, items, events, net_cents, statuses };
    ensure!(
        found == *expected && sequences == events,
        "the views are wrong: {found:?}, sequences add up to {sequences}; expected {expected:?}"
    );
    Ok(())
}

/// Bytes of WAL written so far.
pub async fn wal_position(client: &Client) -> Result<i64> {
    let row = client.query_one("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint", &[]).await?;
    Ok(row.try_get(0)?)
}

/// From the services' own metrics.
async fn batch_events(services: &[Service]) -> Result<f64> {
    let (mut records, mut batches) = (0.0, 0.0);
    for service in services {
        records += service.metric("streamview_batch_records_sum").await?;
        batches += service.metric("streamview_batch_records_count").await?;
    }
    Ok(records / batches)
}
