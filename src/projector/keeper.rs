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
use crate::crash;
use crate::domain::units::{NextOffset, Partition, Sequence};
use crate::failure::Failure;
use crate::projector::context::ViewContext;
use crate::projector::keyed::Heal;
use crate::projector::lane::Errand;
use crate::status::{Reporter, StatusSnapshot};
use crate::store::sqlstate::classify;
use crate::store::{Connection, DbError, control, pool};

/// How often decisions are looked for without being told of one.
const TICK: Duration = Duration::from_secs(1);
/// How often held keys are swept and gaps are proven.
const SWEEP: Duration = Duration::from_secs(5);
/// Keys per healing: all of them are drained side by side, within the memory of a few batches.
const PAGE: i64 = 500;
/// Gaps whose ends are noted at a time; more of them wait for the next sweep.
const FRESH: i64 = 10_000;
/// So many rounds have to fail in a row before it counts as an outage.
const PATIENCE: u32 = 2;
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
    fresh: Option<FreshGaps>,
    /// Rounds in a row that failed.
    failures: u32,
}

/// Gaps that were stored by the moment `seen_at`, and of which nobody has noted yet where the log ends.
#[derive(Debug)]
struct FreshGaps {
    seen_at: Instant,
    /// Keys, and the number that each waits for.
    gaps: Vec<(String, Sequence)>,
}

impl Keeper {
    /// A keeper that sends keys to these lanes.
    pub fn new(context: Arc<ViewContext>, lanes: Vec<UnboundedSender<Errand<Heal>>>) -> Self {
        Keeper { context, lanes, client: None, sweep_after: String::new(), swept_at: None, fresh: None, failures: 0 }
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
            crash::point("part.keeper");
            if context.status.is_halted() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                done = self.round() => self.report(done),
            }
        }
    }

    fn report(&mut self, done: Result<(), DbError>) {
        let status = &self.context.status;
        let Err(error) = done else {
            self.failures = 0;
            return status.clear(Reporter::Keeper);
        };
        self.client = None;
        let failure = classify(error, None);
        if let Failure::TooMuch(reason) | Failure::Record(reason) = &failure {
            // A statement of ours that is too slow, say: batches go on, and so do reads. Not sooner than its next turn.
            tracing::warn!(view = self.context.source.view, reason, "held keys are not looked after");
            return status.clear(Reporter::Keeper);
        }
        // The whole round again: what only reads would say that all is well.
        self.swept_at = None;
        self.failures += 1;
        match failure.wait_or_halt() {
            // A deadlock lost once is no outage.
            Ok((_, reason)) if self.failures < PATIENCE => {
                tracing::debug!(view = self.context.source.view, reason, "held keys were not looked after");
            }
            Ok((waiting, reason)) => {
                status.report(Reporter::Keeper, waiting, &format!("held keys are not looked after: {reason}"));
            }
            Err(halt) => status.halt(halt),
        }
    }

    async fn round(&mut self) -> Result<(), DbError> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => pool::connect_writer(&self.context.database, "public").await?,
        };
        self.bring_decisions(&client).await?;
        self.watch_gaps(&client).await?;
        if self.swept_at.is_none_or(|at| at.elapsed() >= SWEEP) {
            self.swept_at = Some(Instant::now());
            self.sweep(&client).await?;
            self.prove_gaps(&client).await?;
            self.look_for_gaps(&client).await?;
        }
        self.client = Some(client);
        Ok(())
    }

    /// Brings every decision that can be folded with to the lane of its key.
    async fn bring_decisions(&self, client: &Connection) -> Result<(), DbError> {
        let mut after = 0;
        loop {
            let owned: Vec<Partition> = self.context.status.snapshot().partitions.into_keys().collect();
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
    /// (after a change of the partition count, say), or have lost its hold to one that released it.
    async fn sweep(&mut self, client: &Connection) -> Result<(), DbError> {
        let page = control::held_page(client, &self.context.source, &self.sweep_after, PAGE).await?;
        self.sweep_after = page.last().map(|(key, _)| key.clone()).unwrap_or_default();
        self.heal(page.into_iter()).await;
        Ok(())
    }

    /// Has the lanes look at these keys, and waits until they have: a busy lane is not asked twice.
    async fn heal(&self, keys: impl Iterator<Item = (String, Partition)>) {
        let owned = self.context.status.snapshot().partitions;
        let mut by_lane: BTreeMap<usize, BTreeMap<String, Partition>> = BTreeMap::new();
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

    /// Notes beside gaps where the log ends, in every partition: what is missing is not in the log once all of it is
    /// consumed up to there.
    ///
    /// That is true only of ends asked for after the gap was stored: the observer's last ones may be as old as an outage
    /// of Kafka is long, and the missing event may stand right behind them. So gaps are noted that were seen before the
    /// observer began to ask, and both moments are this process's own: Postgres, which stores the gaps, has another
    /// clock, and other processes store gaps, too.
    async fn watch_gaps(&mut self, client: &Connection) -> Result<(), DbError> {
        let Some(fresh) = &self.fresh else { return Ok(()) };
        let Some(ends) = ends_asked_after(fresh.seen_at, &self.context.status.snapshot()) else { return Ok(()) };
        control::watch_gaps(client, &self.context.source, &fresh.gaps, &ends).await?;
        self.fresh = None;
        Ok(())
    }

    /// Remembers gaps of which nobody has noted the ends, for [`Keeper::watch_gaps`].
    async fn look_for_gaps(&mut self, client: &Connection) -> Result<(), DbError> {
        if self.fresh.is_none() {
            let gaps = control::fresh_gaps(client, &self.context.source, FRESH).await?;
            self.fresh = (!gaps.is_empty()).then(|| FreshGaps { seen_at: Instant::now(), gaps });
        }
        Ok(())
    }

    /// A gap is proven when every partition has been consumed past where it ended after the gap was first seen.
    async fn prove_gaps(&self, client: &Connection) -> Result<(), DbError> {
        let source = &self.context.source;
        let proven = control::prove_gaps(client, source).await?;
        if self.context.gap_policy == GapPolicy::Hold {
            return Ok(());
        }
        for (key, missing) in proven.iter().take(NAMED) {
            tracing::warn!(view = source.view, orderId = key, sequence = missing.0, "gap is proven: not in the log");
        }
        if proven.len() > NAMED {
            tracing::warn!(view = source.view, more = proven.len() - NAMED, "more gaps are proven");
        }
        Ok(())
    }
}

/// Where the log ends, by partition, if that was asked for after `moment`, and there is a log.
fn ends_asked_after(moment: Instant, snapshot: &StatusSnapshot) -> Option<Vec<NextOffset>> {
    let (_, lags) = snapshot.lags.as_ref().filter(|_| snapshot.ends_asked_at.is_some_and(|asked| asked > moment))?;
    let mut ends: Vec<NextOffset> = Vec::new();
    for lag in lags {
        let partition = lag.position.partition.index()?;
        ends.resize(ends.len().max(partition + 1), NextOffset(0));
        ends[partition] = lag.position.high_watermark;
    }
    // Every gap would be past the ends of no partition at all.
    (!ends.is_empty()).then_some(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::domain::build::BuildId;
    use crate::domain::lag::{LagHistory, PartitionPosition};
    use crate::domain::meaning::Meaning;
    use crate::domain::units::Offset;
    use crate::status::{Phase, ViewStatus};

    fn status_of_orders() -> ViewStatus {
        let config = Config::defaults();
        let configured = Meaning { projection_version: 1, rules: config.rules_of(&config.views["orders"]) };
        ViewStatus::new(BuildId::new("orders", 1), ("orders.events", "streamview"), configured, Phase::Running)
    }

    fn observed(asked: Instant, ends: &[i64]) -> StatusSnapshot {
        let now = jiff::Timestamp::now();
        let lags = ends.iter().zip(0..).map(|(end, partition)| {
            let (partition, last_record_timestamp) = (Partition(partition), None);
            let (next_offset, low_watermark, high_watermark) = (NextOffset(0), Offset(0), NextOffset(*end));
            let position =
                PartitionPosition { partition, next_offset, low_watermark, high_watermark, last_record_timestamp };
            LagHistory::default().observe(position, now, None)
        });
        let status = status_of_orders();
        status.observe_lags(asked, now, lags.collect());
        status.snapshot()
    }

    #[test]
    fn ends_count_only_if_they_were_asked_for_after_the_gap_was_seen() {
        let before = Instant::now();
        let seen = before + Duration::from_secs(1);
        let after = seen + Duration::from_secs(1);
        assert_eq!(ends_asked_after(seen, &observed(before, &[5, 7])), None, "as old as the outage");
        assert_eq!(ends_asked_after(seen, &observed(seen, &[5, 7])), None, "perhaps a moment before");
        assert_eq!(ends_asked_after(seen, &observed(after, &[5, 7])), Some(vec![NextOffset(5), NextOffset(7)]));
        assert_eq!(ends_asked_after(seen, &observed(after, &[])), None, "no log");
        let never = status_of_orders().snapshot();
        assert_eq!(ends_asked_after(seen, &never), None);
    }
}
