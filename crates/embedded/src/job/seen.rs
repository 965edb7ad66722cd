//! What others see of a job, and what they wish of it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use streamview_manager::engines::{Handle, ObservedState, RestorePoint};
use tokio::sync::watch;

use super::tables::TableNow;
use crate::run::Usage;

/// What is wished of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It shall go on.
    Run,
    /// It shall end, and commit what is complete.
    Keep,
    /// It shall end as it stands.
    End,
    /// Likewise, and it is nobody's in this process any more: whoever leads begins it again, here or elsewhere, or has done so.
    LetGo,
}

/// What a job has counted since it began.
#[derive(Debug, Default)]
pub struct Counts {
    /// Records that were read.
    pub read: AtomicU64,
    /// Rows that were committed.
    pub written: AtomicU64,
    /// Rows whose windows were closed.
    pub late: AtomicU64,
    /// Rows from the future.
    pub future: AtomicU64,
    /// Records that cannot be read, or with which an expression fails.
    pub refused: AtomicU64,
    /// Groups of windows with which an expression over their aggregates fails.
    pub failed_groups: AtomicU64,
    /// Records without a value.
    pub tombstones: AtomicU64,
    /// Commits.
    pub commits: AtomicU64,
    /// Microseconds of work, without waiting.
    pub busy_micros: AtomicU64,
    /// Bytes of state now.
    pub state_bytes: AtomicU64,
    /// Groups now, or more.
    pub keys: AtomicU64,
    /// Open windows now.
    pub open_windows: AtomicU64,
    /// No row before this is waited for: milliseconds since 1970, the smallest number if there is none.
    pub watermark_ms: AtomicI64,
    /// Rows that were committed in the last whole second.
    pub per_second: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, more: usize) {
        counter.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// What it takes now.
    pub(super) fn note(&self, usage: Usage, watermark: Option<i64>) {
        self.state_bytes.store(usage.state_bytes as u64, Ordering::Relaxed);
        self.keys.store(usage.keys as u64, Ordering::Relaxed);
        self.open_windows.store(usage.open_windows as u64, Ordering::Relaxed);
        self.watermark_ms.store(watermark.unwrap_or(i64::MIN), Ordering::Relaxed);
    }

    /// The value of a counter.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// A deployed query as others see it.
pub(crate) struct Job {
    /// As it was answered when it was deployed.
    pub handle: Handle,
    pub definition: String,
    /// Where its positions stand.
    pub group: String,
    /// The user's text.
    pub statement: String,
    /// The topics that it reads.
    pub topics: Vec<String>,
    pub counts: Counts,
    state: Mutex<State>,
    changed: Condvar,
    ended: watch::Sender<bool>,
}

struct State {
    wish: Wish,
    observed: ObservedState,
    failure: Option<String>,
    /// The tables that it joins, as it met them last.
    tables: Vec<TableNow>,
    /// The rate is of the second that began then, with so many rows before it.
    second: (Instant, u64),
}

impl Job {
    pub fn new(handle: Handle, definition: String, group: String, statement: String, topics: Vec<String>) -> Job {
        let second = (Instant::now(), 0);
        let state =
            State { wish: Wish::Run, observed: ObservedState::Starting, failure: None, tables: Vec::new(), second };
        Job {
            handle,
            definition,
            group,
            statement,
            topics,
            counts: Counts::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            ended: watch::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where its state is kept.
    pub fn point(&self, savepoint: bool) -> RestorePoint {
        RestorePoint { path: format!("kafka-group:{}", self.group), savepoint }
    }

    pub fn wish(&self) -> Wish {
        self.lock().wish
    }

    /// What is wished first counts: a stop with state is not made one without.
    pub fn ask(&self, wish: Wish) {
        let mut state = self.lock();
        if state.wish == Wish::Run {
            state.wish = wish;
        }
        self.changed.notify_all();
    }

    pub fn observed(&self) -> (ObservedState, Option<String>) {
        let state = self.lock();
        match state.wish {
            // Who leads here again waits for its end.
            Wish::LetGo if self.is_active() => (ObservedState::Stopping, None),
            _ => (state.observed, state.failure.clone()),
        }
    }

    /// Whether it runs, or will again.
    pub fn is_active(&self) -> bool {
        !*self.ended.borrow()
    }

    pub(super) fn runs(&self) {
        let mut state = self.lock();
        state.observed = ObservedState::Running;
        state.failure = None;
    }

    /// It meets its tables as they are now.
    pub(super) fn meets(&self, tables: Vec<TableNow>) {
        self.lock().tables = tables;
    }

    /// Its tables, as it met them last.
    pub fn tables(&self) -> Vec<TableNow> {
        self.lock().tables.clone()
    }

    /// It begins again from its positions, for something that passes.
    pub(super) fn begins_again(&self, why: &str) {
        let mut state = self.lock();
        (state.observed, state.failure) = (ObservedState::Restarting, Some(why.to_owned()));
    }

    /// It has ended.
    pub fn ends(&self, observed: ObservedState, failure: Option<String>) {
        {
            let mut state = self.lock();
            (state.observed, state.failure) = (observed, failure);
        }
        self.ended.send_replace(true);
    }

    /// Waits until something is wished, or so long.
    pub(super) fn pause(&self, limit: Duration) -> Wish {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, limit, |state| state.wish == Wish::Run);
        waited.unwrap_or_else(PoisonError::into_inner).0.wish
    }

    /// Waits until it has ended.
    pub async fn until_ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender is in here: it cannot be gone.
        if ended.wait_for(|ended| *ended).await.is_err() {
            tracing::debug!(job = self.handle.job_id, "nobody tells whether the job has ended");
        }
    }

    /// Counts rows that were committed, and how many a second that is.
    pub(super) fn wrote(&self, rows: usize, now: Instant) {
        Counts::add(&self.counts.written, rows);
        let mut state = self.lock();
        let (since, before) = state.second;
        let took = now.duration_since(since);
        if took >= Duration::from_secs(1) {
            let written = Counts::get(&self.counts.written);
            let per_second = (written - before) as f64 / took.as_secs_f64();
            self.counts.per_second.store(per_second.round() as u64, Ordering::Relaxed);
            state.second = (now, written);
        }
    }
}
