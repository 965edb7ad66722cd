//! The service after its backlog, with nothing to do: what it costs, and what memory it gives back.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::fleet::{Fleet, Service};
use crate::processes::memory_mb;
use crate::results::Better::Less;
use crate::section::{Lines, Section};

/// What an idle service costs.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// CPU in percent of one core.
    pub cpu_percent: f64,
    /// Resident memory at the end of its backlog.
    pub rss_before_mb: f64,
    /// Resident memory now.
    pub rss_mb: f64,
    /// Seconds watched.
    pub seconds: f64,
}

/// How it is reported.
pub fn section(runs: &[Idle]) -> Section {
    Lines::of("idle after the backlog", runs)
        .context("watched", "s", |run| run.seconds)
        .informs(Less, "CPU of the service", "% of a core", |run| run.cpu_percent)
        .context("RSS before", "MB", |run| run.rss_before_mb)
        .judged(Less, "RSS after", "MB", |run| run.rss_mb)
        .done()
}

/// Watches it for so many seconds, the first not counted.
pub async fn watch(fleet: &Fleet, service: &Service, seconds: f64) -> Result<Idle> {
    let (rss_before_mb, _) = memory_mb(service.pid())?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let watched = fleet.watched(std::slice::from_ref(service))?;
    let (before, started) = (watched.cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), watched.cpu()?.since(before));
    let (rss_mb, _) = memory_mb(service.pid())?;
    Ok(Idle { cpu_percent: cpu.client / elapsed * 100.0, rss_before_mb, rss_mb, seconds: elapsed })
}
