//! What a running view tells the rest of the process: its state, its partitions, its commits.
//! Written by the projector, read by the API, readiness and metrics. Holds no rows and takes no decisions.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::domain::lag::PartitionLag;

/// The state of a view's projector in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewState {
    /// Connecting; nothing assigned yet.
    Starting,
    /// Consuming, or assigned and at the end of the log.
    Running,
    /// Postgres does not answer; partitions wait, polling goes on.
    WaitingForDatabase,
    /// Kafka does not answer.
    WaitingForKafka,
    /// Stopped for good until an operator acts: what is wrong and the next step.
    Halted(Halt),
    /// Draining after SIGTERM.
    Stopping,
    /// This process serves reads only (`serve --only api`).
    NotProjecting,
}

/// Why a view stopped itself rather than be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// Stable name: `log_identity_changed`, `log_truncated`, `permission_denied`, `schema_mismatch`, ...
    pub code: &'static str,
    /// One sentence with partition and offsets.
    pub detail: String,
    /// What the operator does next.
    pub next_step: &'static str,
}

impl ViewState {
    /// The word used in JSON and as a metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            ViewState::Starting => "starting",
            ViewState::Running => "running",
            ViewState::WaitingForDatabase => "waiting_for_database",
            ViewState::WaitingForKafka => "waiting_for_kafka",
            ViewState::Halted(_) => "halted",
            ViewState::Stopping => "stopping",
            ViewState::NotProjecting => "not_projecting",
        }
    }

    /// Every word `as_str` can give, so that each metric series exists from the start.
    pub const NAMES: [&'static str; 7] =
        ["starting", "running", "waiting_for_database", "waiting_for_kafka", "halted", "stopping", "not_projecting"];
}

/// One partition that this process owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedPartition {
    /// First offset not applied yet.
    pub next_offset: i64,
    /// Our fencing number.
    pub owner_epoch: i64,
    /// The lane that applies it.
    pub lane: usize,
    /// Why nothing is read from it now (`park bound reached: ...`), if so.
    pub paused: Option<String>,
    /// When the last batch was committed.
    pub last_commit_at: Option<Timestamp>,
}

/// A copy of everything at one moment.
#[derive(Debug, Clone)]
pub struct StatusSnapshot {
    /// The state.
    pub state: ViewState,
    /// What is going on, for people (the error of the database, say).
    pub reason: Option<String>,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// Partitions that this process owns.
    pub partitions: BTreeMap<i32, OwnedPartition>,
    /// Last observed lag of every partition of the topic, whoever owns it, and when it was observed.
    pub lags: Option<(Timestamp, Vec<PartitionLag>)>,
}

/// Shared handle of one view.
#[derive(Debug)]
pub struct ViewStatus {
    /// Registry name of the view.
    pub view: &'static str,
    /// Active build.
    pub build: i32,
    /// Source topic.
    pub topic: String,
    /// Kafka consumer group.
    pub group: String,
    /// Notified when this process has made a decision about the view.
    pub decided: Notify,
    snapshot: Mutex<StatusSnapshot>,
    commits: watch::Sender<u64>,
}

impl ViewStatus {
    /// A view that has not started.
    pub fn new(view: &'static str, build: i32, topic: &str, group: &str, state: ViewState) -> Self {
        let snapshot =
            StatusSnapshot { state, reason: None, since: Timestamp::now(), partitions: BTreeMap::new(), lags: None };
        ViewStatus {
            view,
            build,
            topic: topic.to_owned(),
            group: group.to_owned(),
            decided: Notify::new(),
            snapshot: Mutex::new(snapshot),
            commits: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, StatusSnapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything now.
    pub fn snapshot(&self) -> StatusSnapshot {
        self.lock().clone()
    }

    /// Moves to `state`; returns whether that was a change. A halted view stays halted.
    pub fn enter(&self, state: ViewState, reason: Option<String>) -> bool {
        let mut snapshot = self.lock();
        let halted = matches!(snapshot.state, ViewState::Halted(_));
        if snapshot.state == state || (halted && state != ViewState::Stopping) {
            return false;
        }
        snapshot.state = state;
        snapshot.reason = reason;
        snapshot.since = Timestamp::now();
        true
    }

    /// Changes what is known of one owned partition; does nothing for a partition that is not owned.
    pub fn update_partition(&self, partition: i32, change: impl FnOnce(&mut OwnedPartition)) {
        if let Some(owned) = self.lock().partitions.get_mut(&partition) {
            change(owned);
        }
    }

    /// Records that this process owns `partition` from now on.
    pub fn own(&self, partition: i32, owned: OwnedPartition) {
        self.lock().partitions.insert(partition, owned);
    }

    /// Records that this process lets go of `partition`.
    pub fn disown(&self, partition: i32) {
        self.lock().partitions.remove(&partition);
    }

    /// Publishes a new observation of the lag.
    pub fn observe_lags(&self, at: Timestamp, lags: Vec<PartitionLag>) {
        self.lock().lags = Some((at, lags));
    }

    /// Tells waiters that something was committed.
    pub fn committed(&self) {
        self.commits.send_modify(|count| *count += 1);
    }

    /// Changes whenever this process commits a batch. Never changes in a process that only serves reads.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }
}
