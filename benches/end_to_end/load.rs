//! Bulk load of the backlog into an empty build, by `streamview load`.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::backlog::{self, Backlog, wal_position};
use crate::fleet::Fleet;
use crate::processes::{load_average, memory_mb};
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};
use crate::workload::Expected;

/// What a load took, beside the backlog of the same round.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// The backlog that it is compared with.
    pub backlog: Backlog,
    /// From launching the process to its end.
    pub seconds: f64,
    /// Events in that time, per second.
    pub events_per_s: f64,
    /// CPU microseconds per event of the process.
    pub client_us: f64,
    /// The same of Postgres: all its processes.
    pub postgres_us: f64,
    /// WAL written per event.
    pub wal_bytes: f64,
    /// Highest resident memory of the process.
    pub peak_rss_mb: f64,
    /// Cores that processes outside this benchmark used meanwhile.
    pub others_cores: f64,
    /// Load average before.
    pub load_average: f64,
}

/// How loads are reported.
pub fn section(loads: &[Load]) -> Section {
    Lines::of("bulk load of the same events, launch and indexes included", loads)
        .judged(More, "events/s, ratio to the backlog", "", |load| load.events_per_s / load.backlog.events_per_s)
        .informs(Less, "all of it", "s", |load| load.seconds)
        .informs(More, "events", "/s", |load| load.events_per_s)
        .judged(Less, "CPU of the process", "us/event", |load| load.client_us)
        .judged(Less, "CPU of Postgres", "us/event", |load| load.postgres_us)
        .judged(Less, "peak RSS of the process", "MB", |load| load.peak_rss_mb)
        .judged(Less, "WAL", "B/event", |load| load.wal_bytes)
        .context("used by others", "cores", |load| load.others_cores)
        .context("load average before", "", |load| load.load_average)
        .done()
}

/// How often the process is looked at: what it does after the last look is not counted.
const LOOK: Duration = Duration::from_millis(50);

/// Runs it once in an empty database and checks the result.
pub async fn run(fleet: &Fleet, backlog: Backlog, topic: &str, expected: &Expected) -> Result<Load> {
    let database = "bench_load";
    fleet.create_database(database).await?;
    let client = fleet.connect(database).await?;
    client.batch_execute("checkpoint").await?;
    let (load_average, wal_before) = (load_average()?, wal_position(&client).await?);
    let before = fleet.watched(&[])?.cpu()?;

    let started = Instant::now();
    let mut load = fleet.load(database, topic)?;
    let watched = fleet.watched(std::slice::from_ref(&load))?;
    let (mut cpu, mut peak_rss_mb) = (before, 0.0);
    while !load.has_ended()? {
        if let (Ok(now), Ok((_, peak))) = (watched.cpu(), memory_mb(load.pid())) {
            (cpu, peak_rss_mb) = (now, peak);
        }
        tokio::time::sleep(LOOK).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu.since(before);
    let wal_bytes = (wal_position(&client).await? - wal_before) as f64;
    backlog::check(&client, expected).await?;
    ensure!(peak_rss_mb > 0.0, "the load ended before it could be watched");
    drop(client);
    fleet.drop_database(database).await?;

    let events = expected.events as f64;
    eprintln!("{database}: {:.0} events/s", events / seconds);
    Ok(Load {
        backlog,
        seconds,
        events_per_s: events / seconds,
        client_us: cpu.client / events * 1e6,
        postgres_us: cpu.postgres / events * 1e6,
        wal_bytes: wal_bytes / events,
        peak_rss_mb,
        others_cores: cpu.others() / seconds,
        load_average,
    })
}
