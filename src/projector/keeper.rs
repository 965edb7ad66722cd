//! Looks after held keys beside the lanes: brings decisions to them as soon as they are made, offers held keys for
//! healing that another process may have satisfied, and finds gaps that nothing in the log will close.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::config::GapPolicy;
use crate::projector::context::ViewContext;
use crate::projector::keyed::Heal;
use crate::projector::lane::Errand;
use crate::projector::state::ViewState;
use crate::store::{Connection, DbError, control, pool};

/// How often decisions are looked for without being told of one.
const TICK: Duration = Duration::from_secs(1);
/// How often held keys are swept and gaps are proven.
const SWEEP: Duration = Duration::from_secs(5);
/// Keys per healing: all of them are drained side by side, within the memory of a few batches.
const PAGE: i64 = 500;
/// Proven gaps named in the log, per sweep.
const NAMED: usize = 10;

/// The keeper of one view.
pub struct Keeper {
    context: Arc<ViewContext>,
    /// Lanes by number.
    lanes: Vec<UnboundedSender<Errand<Heal>>>,
    client: Option<Connection>,
    sweep_after: String,
    swept_at: Option<Instant>,
}

impl Keeper {
    /// A keeper that sends keys to these lanes.
    pub fn new(context: Arc<ViewContext>, lanes: Vec<UnboundedSender<Errand<Heal>>>) -> Self {
        Keeper { context, lanes, client: None, sweep_after: String::new(), swept_at: None }
    }

    /// Keeps until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let context = Arc::clone(&self.context);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = context.status.decided.notified() => {}
                _ = tick.tick() => {}
            }
            let state = context.status.snapshot().state;
            if matches!(state, ViewState::Halted(_) | ViewState::WaitingForDatabase) {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                done = self.round() => if let Err(error) = done {
                    tracing::debug!(view = context.source.view, error = %error, "held keys were not looked after");
                    self.client = None;
                }
            }
        }
    }

    async fn round(&mut self) -> Result<(), DbError> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => pool::connect_writer(&self.context.database, "public").await?,
        };
        self.bring_decisions(&client).await?;
        if self.swept_at.is_none_or(|at| at.elapsed() >= SWEEP) {
            self.swept_at = Some(Instant::now());
            self.sweep(&client).await?;
            self.prove_gaps(&client).await?;
        }
        self.client = Some(client);
        Ok(())
    }

    /// Brings every decision that can be folded with to the lane of its key.
    async fn bring_decisions(&self, client: &Connection) -> Result<(), DbError> {
        let mut after = 0;
        loop {
            let owned: Vec<i32> = self.context.status.snapshot().partitions.into_keys().collect();
            let page = control::pending_decisions(client, &self.context.source, &owned, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.0;
            let full = page.len() as i64 == PAGE;
            self.heal(page.into_iter().map(|(_, key, partition)| (key, partition))).await;
            if !full {
                return Ok(());
            }
        }
    }

    /// Offers one page of held keys to their lanes: one of them may be satisfied by now, filled by another process
    /// (after a change of the partition count, say).
    async fn sweep(&mut self, client: &Connection) -> Result<(), DbError> {
        let page = control::held_page(client, &self.context.source, &self.sweep_after, PAGE).await?;
        self.sweep_after = page.last().map(|(key, _)| key.clone()).unwrap_or_default();
        self.heal(page.into_iter()).await;
        Ok(())
    }

    /// Has the lanes look at these keys, and waits until they have: a busy lane is not asked twice.
    async fn heal(&self, keys: impl Iterator<Item = (String, i32)>) {
        let owned = self.context.status.snapshot().partitions;
        let mut by_lane: BTreeMap<usize, BTreeMap<String, i32>> = BTreeMap::new();
        for (key, partition) in keys {
            if let Some(owned) = owned.get(&partition).filter(|owned| owned.paused.is_none()) {
                by_lane.entry(owned.lane).or_default().insert(key, partition);
            }
        }
        let healing = by_lane.into_iter().filter_map(|(lane, keys)| {
            let (done, healed) = oneshot::channel();
            self.lanes.get(lane)?.send((keys.into_iter().collect(), done)).ok()?;
            Some(healed)
        });
        // A lane that has no time, or ends, drops the question; the keys come again.
        drop(join_all(healing.collect::<Vec<_>>()).await);
    }

    /// A gap is proven when every partition has been consumed past where it ended when the gap was first seen.
    async fn prove_gaps(&self, client: &Connection) -> Result<(), DbError> {
        let Some((_, lags)) = self.context.status.snapshot().lags else { return Ok(()) };
        let mut ends: Vec<i64> = Vec::new();
        for lag in &lags {
            let partition = usize::try_from(lag.position.partition).unwrap_or(0);
            ends.resize(ends.len().max(partition + 1), 0);
            ends[partition] = lag.position.high_watermark;
        }
        let source = &self.context.source;
        let proven = control::prove_gaps(client, source, &ends).await?;
        if self.context.rules.gap_policy == GapPolicy::Hold {
            return Ok(());
        }
        for (key, missing) in proven.iter().take(NAMED) {
            tracing::warn!(view = source.view, orderId = key, sequence = missing, "gap is proven: not in the log");
        }
        if proven.len() > NAMED {
            tracing::warn!(view = source.view, more = proven.len() - NAMED, "more gaps are proven");
        }
        Ok(())
    }
}
