//! Read your own write: requests wait for a key of a view to reach a sequence, and one task looks for all of them.
//!
//! It looks once per commit of this process, however many wait. Commits of other processes are not announced here, and nobody
//! says when a standby has replayed one: so while partitions of the view are owned elsewhere, or reads have an address of their
//! own, it also looks every 20 ms, and only while somebody waits.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::board::ViewBoard;
use crate::domain::build::Build;
use crate::store::read::{ReadPool, SequencesOf};
use crate::telemetry::metrics::Metrics;

const POLL: Duration = Duration::from_millis(20);
/// Between looks when this process commits everything itself: only there in case a partition just changed hands.
const SAFETY_POLL: Duration = Duration::from_millis(250);

/// What waiting needs of the process.
#[derive(Clone)]
pub struct WaitResources {
    /// Reads.
    pub pool: ReadPool,
    /// Whether they may be of another server than the one that is written to.
    pub reads_apart: bool,
    /// The gauge of waiters.
    pub metrics: Arc<Metrics>,
    /// Ends every wait.
    pub shutting_down: CancellationToken,
    /// Bounds the waiters of the process.
    pub slots: Arc<Semaphore>,
    /// Runs the looking task; the HTTP workers' own runtimes come and go.
    pub runtime: Handle,
}

/// Everybody who waits for one view.
pub struct Waiters {
    board: Arc<ViewBoard>,
    sequences: SequencesOf,
    resources: WaitResources,
    waiting: Mutex<Waiting>,
    look_now: Notify,
}

#[derive(Default)]
struct Waiting {
    next_id: u64,
    looking: bool,
    by_id: HashMap<u64, Waiter>,
}

struct Waiter {
    key: String,
    sequence: i64,
    reached: oneshot::Sender<()>,
}

/// As many requests as allowed wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many requests as allowed wait already")]
pub struct TooManyWaiters;

/// The commits that a request had seen before it read: a later one may hold what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenCommits(u64);

impl Waiters {
    /// Nobody waits yet.
    pub fn new(board: Arc<ViewBoard>, sequences: SequencesOf, resources: WaitResources) -> Arc<Self> {
        let (waiting, look_now) = (Mutex::default(), Notify::new());
        Arc::new(Waiters { board, sequences, resources, waiting, look_now })
    }

    /// To be called before the read that decides whether to wait.
    pub fn seen_commits(&self) -> SeenCommits {
        SeenCommits(self.commits())
    }

    /// Returns when `key` has reached `sequence`, or after `limit`, whichever is first: the caller reads again.
    pub async fn wait(
        self: &Arc<Self>,
        key: &str,
        sequence: i64,
        seen: SeenCommits,
        limit: Duration,
    ) -> Result<(), TooManyWaiters> {
        let Ok(_slot) = self.resources.slots.try_acquire() else { return Err(TooManyWaiters) };
        let _counted = Counted::new(&self.resources.metrics);
        self.until(key, sequence, seen, limit).await;
        Ok(())
    }

    /// The same for somebody who is counted and bounded elsewhere: it takes no request's place.
    pub(super) async fn until(self: &Arc<Self>, key: &str, sequence: i64, seen: SeenCommits, limit: Duration) {
        let (reached, released) = oneshot::channel();
        let _registration = self.register(Waiter { key: key.to_owned(), sequence, reached }, seen);
        // Ends by the look, by shutdown (the sender is dropped) or by the limit: the caller tells them apart by reading.
        tokio::select! {
            _ = released => {}
            () = tokio::time::sleep(limit) => {}
        }
    }

    fn register(self: &Arc<Self>, waiter: Waiter, seen: SeenCommits) -> Registration {
        let missed_one = SeenCommits(self.commits()) != seen;
        let mut waiting = self.lock();
        let id = waiting.next_id;
        waiting.next_id += 1;
        waiting.by_id.insert(id, waiter);
        if !waiting.looking {
            waiting.looking = true;
            self.resources.runtime.spawn(Arc::clone(self).look_for_all());
        }
        drop(waiting);
        if missed_one {
            self.look_now.notify_one();
        }
        Registration { waiters: Arc::clone(self), id }
    }

    /// The one task: looks while somebody waits, then ends.
    async fn look_for_all(self: Arc<Self>) {
        let _looking = Looking(Arc::clone(&self));
        let (mut build, mut commits) = self.followed();
        loop {
            tokio::select! {
                // Fails only when the build is there no more; the poll below goes on.
                Ok(()) = commits.changed() => {}
                () = self.look_now.notified() => {}
                () = self.resources.shutting_down.cancelled() => {}
                () = tokio::time::sleep(self.poll_interval()) => {}
            }
            let Some(keys) = self.keys_or_end() else { return };
            if self.board.status().build != build {
                (build, commits) = self.followed();
            }
            commits.borrow_and_update();
            match (self.sequences)(self.resources.pool.clone(), keys).await {
                Ok(found) => self.release(&found.into_iter().collect()),
                Err(error) => {
                    // The waiters' own last read tells their callers.
                    tracing::debug!(view = self.board.view, error = %error, "could not look for waiting requests");
                    tokio::time::sleep(SAFETY_POLL).await;
                }
            }
        }
    }

    fn commits(&self) -> u64 {
        *self.board.status().commits().borrow()
    }

    /// The build that readers read, and its commits here.
    fn followed(&self) -> (Build, watch::Receiver<u64>) {
        let status = self.board.status();
        (status.build, status.commits())
    }

    fn keys_or_end(&self) -> Option<Vec<String>> {
        let mut waiting = self.lock();
        if self.resources.shutting_down.is_cancelled() {
            waiting.by_id.clear();
        }
        if waiting.by_id.is_empty() {
            waiting.looking = false;
            return None;
        }
        let keys: HashSet<&String> = waiting.by_id.values().map(|waiter| &waiter.key).collect();
        Some(keys.into_iter().cloned().collect())
    }

    fn release(&self, found: &HashMap<String, i64>) {
        let mut waiting = self.lock();
        let reached = waiting
            .by_id
            .extract_if(|_, waiter| found.get(&waiter.key).is_some_and(|sequence| *sequence >= waiter.sequence));
        for (_, waiter) in reached {
            if waiter.reached.send(()).is_err() {
                tracing::trace!("a waiting request ended at the same moment");
            }
        }
    }

    fn poll_interval(&self) -> Duration {
        poll_interval(self.board.status().commits_everything(), self.resources.reads_apart)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between looks that no commit calls for. What this process has committed is on a standby only later, without a word.
fn poll_interval(commits_everything: bool, reads_apart: bool) -> Duration {
    if commits_everything && !reads_apart { SAFETY_POLL } else { POLL }
}

/// If the one task panics, the next request to wait starts another.
struct Looking(Arc<Waiters>);

impl Drop for Looking {
    fn drop(&mut self) {
        // An end in order has said so under the lock already, and somebody else may look by now.
        if std::thread::panicking() {
            self.0.lock().looking = false;
        }
    }
}

/// Leaves when the request is answered or its client goes away.
struct Registration {
    waiters: Arc<Waiters>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.waiters.lock().by_id.remove(&self.id);
    }
}

/// A request among those that the metric counts.
struct Counted<'a>(&'a Metrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.waiters.inc();
        Counted(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.waiters.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_a_standby_looks_often_although_the_commits_are_its_own() {
        for (commits_everything, reads_apart, interval) in
            [(true, false, SAFETY_POLL), (true, true, POLL), (false, false, POLL), (false, true, POLL)]
        {
            assert_eq!(poll_interval(commits_everything, reads_apart), interval, "{commits_everything} {reads_apart}");
        }
    }
}
