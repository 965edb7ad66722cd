//! Requests that wait for their write while a backlog is projected: what they cost the projector.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::backlog::Backlog;
use crate::fleet::Service;
use crate::http::Connection;
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};
use crate::workload::order_id;

/// Requests that wait at once; the service allows 1,000 by default.
pub const WAITERS: usize = 500;
/// A sequence that no order reaches.
const NEVER: u64 = 1_000_000;
/// Longest wait, in milliseconds: the service's default bound. The shortest is half of it, so that not all end at once.
const WAIT_MS: u64 = 5000;

/// The same backlog without and with them.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Nobody waits.
    pub without: Backlog,
    /// [`WAITERS`] wait.
    pub with: Backlog,
}

/// How pairs are reported. What counts is the time after they have all arrived.
pub fn section(pairs: &[Pair]) -> Section {
    Lines::of(&format!("backlog while {WAITERS} requests wait, as a share of without"), pairs)
        .judged(More, "events/s, ratio", "", |pair| pair.with.settled_events_per_s / pair.without.settled_events_per_s)
        .judged(Less, "CPU of both, ratio", "", |pair| pair.with.settled_us / pair.without.settled_us)
        .judged(Less, "CPU of both, their arrival included, ratio", "", |pair| pair.with.us() / pair.without.us())
        .informs(More, "with them: events", "/s", |pair| pair.with.settled_events_per_s)
        .informs(Less, "with them: CPU of both", "us/event", |pair| pair.with.settled_us)
        .informs(Less, "with them: peak RSS", "MB", |pair| pair.with.peak_rss_mb)
        .context("with them: used by others", "cores", |pair| pair.with.others_cores)
        .done()
}

/// Requests that wait, and ask again when their wait is over. Dropping them ends them.
pub struct Waiters {
    number: usize,
    tasks: JoinSet<Result<()>>,
}

impl Waiters {
    /// Nobody.
    pub fn none() -> Waiters {
        Waiters { number: 0, tasks: JoinSet::new() }
    }

    /// `number` of them, for orders at random of the first `orders`.
    pub fn start(port: u16, number: usize, orders: u64) -> Waiters {
        let mut tasks = JoinSet::new();
        for seed in 0..number as u64 {
            tasks.spawn(wait_forever(port, orders, seed));
        }
        Waiters { number, tasks }
    }

    /// Fails unless they still wait.
    pub async fn check(mut self, service: &Service) -> Result<()> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended.context("a waiter panicked")??;
        }
        let waiting = service.metric("streamview_waiters").await?;
        ensure!(waiting * 10.0 >= self.number as f64 * 9.0, "only {waiting} of {} requests wait", self.number);
        Ok(())
    }
}

async fn wait_forever(port: u16, orders: u64, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut connection = Connection::open(port).await?;
    loop {
        let (order, wait_ms) = (order_id(random.u64(..orders)), random.u64(WAIT_MS / 2..=WAIT_MS));
        let target = format!("/orders/{order}?minSequence={NEVER}&waitMs={wait_ms}");
        let answer = connection.get(&target).await?;
        ensure!(answer.status == 412, "GET {target} answered {}", answer.status);
    }
}
