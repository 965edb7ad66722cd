//! Bulk load of the same topic into an empty build, by `streamview load`.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::backlog::{self, wal_position};
use crate::fleet::{BACKLOG_TOPIC, Fleet};
use crate::processes::{Cpu, load_average, memory_mb};
use crate::workload::expected;

/// What a load took.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
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

/// How often the process is looked at: what it does after the last look is not counted.
const LOOK: Duration = Duration::from_millis(10);

/// Runs it once in an empty database and checks the result.
pub async fn run(fleet: &Fleet, database: &str, orders: u64) -> Result<Load> {
    fleet.create_database(database).await?;
    let client = fleet.connect(database).await?;
    let expected = expected(orders);
    client.batch_execute("checkpoint").await?;
    let (load_average, wal_before) = (load_average()?, wal_position(&client).await?);
    let before = fleet.watched(None)?.cpu()?;

    let started = Instant::now();
    let mut child = fleet.load(database, BACKLOG_TOPIC, database)?;
    let (mut cpu, mut peak_rss_mb): (Cpu, f64) = (before, 0.0);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let watched = fleet.watched(Some(child.id()))?;
        if let (Ok(now), Ok((_, peak))) = (watched.cpu(), memory_mb(child.id())) {
            (cpu, peak_rss_mb) = (now, peak);
        }
        tokio::time::sleep(LOOK).await;
    };
    let seconds = started.elapsed().as_secs_f64();
    ensure!(status.success(), "streamview load ended with {status}");
    let cpu = cpu.since(before);
    let wal_bytes = (wal_position(&client).await? - wal_before) as f64;
    backlog::check(&client, &expected).await?;

    let events = expected.events as f64;
    Ok(Load {
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
