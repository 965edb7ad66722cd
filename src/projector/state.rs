//! What a running view tells the rest of the process: its state, its partitions, its commits.
//! Written by the projector, read by the API, readiness and metrics. Holds no rows and takes no decisions.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::domain::history::History;
use crate::domain::lag::PartitionLag;
pub use crate::failure::Halt;
use crate::store::progress::BuildSource;

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
    /// The schema registry does not answer; records whose schemas are known go on.
    WaitingForRegistry,
    /// Stopped for good until an operator acts: what is wrong and the next step.
    Halted(Halt),
    /// Draining after SIGTERM.
    Stopping,
    /// This process serves reads only (`serve --only api`).
    NotProjecting,
}

impl ViewState {
    /// The word used in JSON and as a metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            ViewState::Starting => "starting",
            ViewState::Running => "running",
            ViewState::WaitingForDatabase => "waiting_for_database",
            ViewState::WaitingForKafka => "waiting_for_kafka",
            ViewState::WaitingForRegistry => "waiting_for_registry",
            ViewState::Halted(_) => "halted",
            ViewState::Stopping => "stopping",
            ViewState::NotProjecting => "not_projecting",
        }
    }

    /// Every word `as_str` can give, so that each metric series exists from the start.
    pub const NAMES: [&'static str; 8] = [
        "starting",
        "running",
        "waiting_for_database",
        "waiting_for_kafka",
        "waiting_for_registry",
        "halted",
        "stopping",
        "not_projecting",
    ];
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
    /// Why nothing is read from it now, if so.
    pub paused: Option<Pause>,
    /// When the last batch was committed.
    pub last_commit_at: Option<Timestamp>,
}

/// Why nothing is read from an owned partition now. It is tried again every few seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Stable name: one of [`Pause::CODES`].
    pub code: &'static str,
    /// A sentence with offsets, and what to do where somebody has to.
    pub detail: String,
    /// Where the batch begins that cannot be read, if that is why.
    pub unreadable_at: Option<i64>,
    /// Whether it is too large to be received, so that asking for it disturbs the other partitions.
    pub too_large: bool,
}

impl Pause {
    /// A batch of the log cannot be read.
    pub const UNREADABLE: &'static str = "unreadable_batch";
    /// Every code, so that each metric series exists from the start.
    pub const CODES: [&'static str; 3] = ["park_bound_reached", Pause::UNREADABLE, "not_owner"];

    /// One event more would be more parked events than allowed.
    pub fn park_bound(why: &str, offset: i64) -> Pause {
        Pause {
            code: "park_bound_reached",
            detail: format!("{why}, at offset {offset}"),
            unreadable_at: None,
            too_large: false,
        }
    }

    /// Another instance owns the partition.
    pub fn not_owner() -> Pause {
        let detail = "another instance owns the partition".to_owned();
        Pause { code: "not_owner", detail, unreadable_at: None, too_large: false }
    }

    /// The batch at `offset` cannot be read.
    pub fn unreadable(partition: i32, offset: i64, text: &str) -> Pause {
        let detail = format!(
            "unreadable_batch: partition {partition}, the batch at offset {offset} cannot be read: {text}. Repair the log \
             (another replica may have it whole), or give it up with POST /ops/partitions/{partition}/skip-to"
        );
        Pause { code: Pause::UNREADABLE, detail, unreadable_at: Some(offset), too_large: false }
    }

    /// The batch that holds `offset` is larger than we may receive.
    pub fn too_large(partition: i32, offset: i64, text: &str) -> Pause {
        let detail = format!(
            "unreadable_batch: partition {partition}, the batch at offset {offset} is larger than kafka.max_fetch_bytes: \
             {text}. Raise that setting and restart, or give it up with POST /ops/partitions/{partition}/skip-to"
        );
        Pause { code: Pause::UNREADABLE, detail, unreadable_at: Some(offset), too_large: true }
    }

    /// Whether it lasts until the record it stands before has been passed.
    fn lasts(&self) -> bool {
        self.code != "not_owner"
    }
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
    /// Why dead letters wait in their table, if they do.
    pub dead_letters_wait: Option<String>,
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
    /// What is kept of each event.
    pub history: History,
    snapshot: Mutex<StatusSnapshot>,
    commits: watch::Sender<u64>,
    /// Notified when something was decided through this process.
    pub decided: Notify,
}

impl ViewStatus {
    /// A view that has not started.
    pub fn new(source: &BuildSource, group: &str, history: History, state: ViewState) -> Self {
        let snapshot = StatusSnapshot {
            state,
            reason: None,
            since: Timestamp::now(),
            partitions: BTreeMap::new(),
            dead_letters_wait: None,
            lags: None,
        };
        ViewStatus {
            view: source.view,
            build: source.build,
            topic: source.topic.clone(),
            group: group.to_owned(),
            history,
            snapshot: Mutex::new(snapshot),
            commits: watch::Sender::new(0),
            decided: Notify::new(),
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

    /// Records that this process owns `partition` from now on. A partition tried again at the same place stays paused
    /// until it has moved, so that nobody sees it flicker.
    pub fn own(&self, partition: i32, mut owned: OwnedPartition) {
        let mut snapshot = self.lock();
        if let Some(before) = snapshot.partitions.get(&partition).filter(|p| p.next_offset == owned.next_offset) {
            owned.paused = before.paused.clone().filter(Pause::lasts);
        }
        snapshot.partitions.insert(partition, owned);
    }

    /// Leaves a halt of that code, whose reason is gone; tells whether there was one.
    pub fn end_halt(&self, code: &str) -> bool {
        let mut snapshot = self.lock();
        let ends = matches!(&snapshot.state, ViewState::Halted(halt) if halt.code == code);
        if ends {
            snapshot.state = ViewState::Starting;
            snapshot.reason = None;
            snapshot.since = Timestamp::now();
        }
        ends
    }

    /// Records that this process lets go of `partition`.
    pub fn disown(&self, partition: i32) {
        self.lock().partitions.remove(&partition);
    }

    /// Records why dead letters wait in their table, or that they flow.
    pub fn dead_letters_wait(&self, why: Option<String>) {
        self.lock().dead_letters_wait = why;
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
