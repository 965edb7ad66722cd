//! What a running view tells the rest of the process: its state, its partitions, its commits.
//!
//! Parts report what they wait for, each for itself; the state follows from all of it ([`Conditions`]). Written by the
//! projector, read by the API, readiness and metrics. Holds no rows and takes no decisions.

mod conditions;

pub use self::conditions::{Condition, Conditions, HaltIs, Phase, Reporter, ViewState};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::domain::build::{Build, BuildId};
use crate::domain::lag::PartitionLag;
use crate::domain::meaning::{Difference, Meaning, Standing, in_words};
use crate::domain::pause::{PAUSED, ViewPause};
use crate::domain::units::{Epoch, NextOffset, Offset, Partition};
use crate::failure::{Halt, Waiting};

/// One partition that this process owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedPartition {
    /// First offset not applied yet.
    pub next_offset: NextOffset,
    /// Our fencing number.
    pub owner_epoch: Epoch,
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
    /// Where the batch begins that cannot be read, or the record stands whose schema nobody knows, if that is why: an
    /// operator may give up what stands there.
    pub unreadable_at: Option<Offset>,
    /// Whether it is too large to be received, so that asking for it disturbs the other partitions.
    pub too_large: bool,
}

impl Pause {
    /// No more events may be parked.
    pub const PARK_BOUND: &'static str = "park_bound_reached";
    /// A batch of the log cannot be read.
    pub const UNREADABLE: &'static str = "unreadable_batch";
    /// The registry does not know the schema of a record.
    pub const SCHEMA_NOT_FOUND: &'static str = "schema_not_found";
    /// Every code, so that each metric series exists from the start.
    pub const CODES: [&'static str; 5] =
        [Pause::PARK_BOUND, Pause::UNREADABLE, Pause::SCHEMA_NOT_FOUND, "not_owner", PAUSED];

    /// One event more would be more parked events than allowed.
    pub fn park_bound(why: &str, offset: Offset) -> Pause {
        Pause {
            code: Pause::PARK_BOUND,
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

    /// An operator has paused the view.
    pub fn of_view(pause: &ViewPause) -> Pause {
        Pause { code: PAUSED, detail: pause.to_string(), unreadable_at: None, too_large: false }
    }

    /// The batch at `offset` cannot be read.
    pub fn unreadable(partition: Partition, offset: Offset, text: &str) -> Pause {
        let detail = format!(
            "unreadable_batch: partition {partition}, the batch at offset {offset} cannot be read: {text}. Repair the log \
             (another replica may have it whole), or give it up with POST /ops/partitions/{partition}/skip-to"
        );
        Pause { code: Pause::UNREADABLE, detail, unreadable_at: Some(offset), too_large: false }
    }

    /// The batch that holds `offset` is larger than we may receive.
    pub fn too_large(partition: Partition, offset: Offset, text: &str) -> Pause {
        let detail = format!(
            "unreadable_batch: partition {partition}, the batch at offset {offset} is larger than kafka.max_fetch_bytes: \
             {text}. Raise that setting and restart, or give it up with POST /ops/partitions/{partition}/skip-to"
        );
        Pause { code: Pause::UNREADABLE, detail, unreadable_at: Some(offset), too_large: true }
    }

    /// The registry does not know the schema of the record at `offset`.
    pub fn schema_not_found(partition: Partition, offset: Offset, text: &str) -> Pause {
        let detail = format!(
            "schema_not_found: {text}. Or give the record up with POST /ops/partitions/{partition}/skip-to, from offset \
             {offset} to {}",
            offset.next()
        );
        Pause { code: Pause::SCHEMA_NOT_FOUND, detail, unreadable_at: Some(offset), too_large: false }
    }

    /// Whether it lasts until the record it stands before has been passed.
    fn lasts(&self) -> bool {
        !["not_owner", PAUSED].contains(&self.code)
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
    /// Why nothing is projected here although it should, if so.
    pub stands: Option<Standing>,
    /// That an operator has paused the view, if so.
    pub paused: Option<ViewPause>,
    /// Partitions that this process owns.
    pub partitions: BTreeMap<Partition, OwnedPartition>,
    /// Why dead letters wait in their table, if they do.
    pub dead_letters_wait: Option<String>,
    /// Last observed lag of every partition of the topic, whoever owns it, and when it was observed.
    pub lags: Option<(Timestamp, Vec<PartitionLag>)>,
    /// When it was begun to ask for the ends of that log: they are at least as new as that.
    pub ends_asked_at: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    conditions: Conditions,
    meaning: Meaning,
    snapshot: StatusSnapshot,
    /// Why the view waits, as far as the log has it since the view began to.
    said: BTreeSet<String>,
}

/// Most reasons that the log has of one wait: whoever waits for something says it in few ways.
const MOST_SAID: usize = 4;

/// Shared handle of one view.
#[derive(Debug)]
pub struct ViewStatus {
    /// Registry name of the view.
    pub view: &'static str,
    /// Active build.
    pub build: Build,
    /// Source topic.
    pub topic: String,
    /// Kafka consumer group.
    pub group: String,
    /// What the rows of its next build would mean, by the settings of this process.
    pub configured: Meaning,
    known: Mutex<Known>,
    commits: watch::Sender<u64>,
    halted: Notify,
    pause_changed: Notify,
    /// What works, by name.
    parts: Mutex<Vec<String>>,
    /// Notified when something was decided through this process.
    pub decided: Notify,
}

/// A part that works.
pub struct Work {
    status: Arc<ViewStatus>,
    part: String,
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut parts = self.status.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = parts.iter().position(|part| *part == self.part) {
            parts.remove(place);
        }
    }
}

impl ViewStatus {
    /// A view of which nobody waits for anything, made by what is configured.
    pub fn new(build: BuildId, (topic, group): (&str, &str), configured: Meaning, phase: Phase) -> Self {
        let BuildId { view, build } = build;
        let conditions = Conditions::new(phase);
        let snapshot = StatusSnapshot {
            state: conditions.state(),
            reason: None,
            stands: None,
            paused: None,
            since: Timestamp::now(),
            partitions: BTreeMap::new(),
            dead_letters_wait: None,
            lags: None,
            ends_asked_at: None,
        };
        ViewStatus {
            view,
            build,
            topic: topic.to_owned(),
            group: group.to_owned(),
            known: Mutex::new(Known { conditions, meaning: configured.clone(), snapshot, said: BTreeSet::new() }),
            configured,
            commits: watch::Sender::new(0),
            halted: Notify::new(),
            pause_changed: Notify::new(),
            parts: Mutex::default(),
            decided: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What works for the view at the moment, by name, in the order in which it began.
    pub fn parts(&self) -> Vec<String> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// That part works, until what is given back is dropped.
    pub fn works(self: &Arc<Self>, part: &str) -> Work {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push(part.to_owned());
        Work { status: Arc::clone(self), part: part.to_owned() }
    }

    /// A copy of everything now.
    pub fn snapshot(&self) -> StatusSnapshot {
        self.lock().snapshot.clone()
    }

    /// `reporter` waits, and goes on trying.
    pub fn report(&self, reporter: Reporter, waiting: Waiting, reason: &str) {
        let is_new = self.change(|conditions| conditions.report(reporter, waiting, reason, Timestamp::now()));
        // Its state does not tell.
        if is_new && self.lock().snapshot.state == ViewState::NotProjecting {
            tracing::warn!(view = self.view, ?reporter, reason, "the view is not projected here, nor observed");
        }
    }

    /// `reporter` waits for nothing: it has succeeded, or there is nothing left for it to do.
    pub fn clear(&self, reporter: Reporter) {
        self.change(|conditions| conditions.clear(reporter));
    }

    /// What the rows of the build mean.
    pub fn meaning(&self) -> Meaning {
        self.lock().meaning.clone()
    }

    /// What is configured otherwise than the build is made by.
    pub fn differences(&self) -> Vec<Difference> {
        self.lock().meaning.differences(&self.configured)
    }

    /// Notes what the rows of the build mean, and says so once if something else is configured.
    pub fn learn(&self, meaning: &Meaning) {
        let before = std::mem::replace(&mut self.lock().meaning, meaning.clone());
        let differences = meaning.differences(&self.configured);
        if before == *meaning || differences == before.differences(&self.configured) {
            return;
        }
        let (view, build) = (self.view, self.build.0);
        if differences.is_empty() {
            tracing::info!(view, build, "the build is made by what is configured");
        } else {
            let differences = in_words(&differences);
            tracing::warn!(
                view,
                build,
                differences,
                "the build keeps what it was made by; `streamview rebuild` would take up what is configured"
            );
        }
    }

    /// Nothing is projected here, and reads go on.
    pub fn stand(&self, standing: &Standing) {
        let Standing { code, detail } = standing;
        tracing::warn!(view = self.view, code, detail, "view stands still");
        self.change(|conditions| conditions.stand(standing.clone()));
        self.lock().snapshot.stands = Some(standing.clone());
    }

    /// Notes whether an operator has paused the view; who consumes learns of it by [`ViewStatus::until_pause_changes`].
    pub fn set_pause(&self, pause: Option<ViewPause>) {
        {
            let paused = &mut self.lock().snapshot.paused;
            if *paused == pause {
                return;
            }
            *paused = pause.clone();
        }
        let (view, build) = (self.view, self.build.0);
        match pause {
            Some(ViewPause { reason, actor, on_behalf_of, since }) => {
                tracing::warn!(view, build, reason, actor, on_behalf_of, %since, "view is paused, nothing is applied until it is resumed");
            }
            None => tracing::info!(view, build, "view is resumed"),
        }
        self.pause_changed.notify_one();
    }

    /// The pause of the view, if an operator has paused it.
    pub fn paused(&self) -> Option<ViewPause> {
        self.lock().snapshot.paused.clone()
    }

    /// Returns once when an operator has paused or resumed the view.
    pub async fn until_pause_changes(&self) {
        self.pause_changed.notified().await;
    }

    /// The group has said what is ours.
    pub fn started(&self) {
        self.change(Conditions::started);
    }

    /// The view is told to stop.
    pub fn stopping(&self) {
        self.change(Conditions::stopping);
    }

    /// Stops for good: going on would be wrong. Whoever consumes learns of it by [`ViewStatus::until_halted`].
    pub fn halt(&self, halt: Halt) {
        let (view, Halt { code, detail, next_step }) = (self.view, halt.clone());
        match self.change(|conditions| conditions.halt(halt)) {
            HaltIs::First => {
                tracing::error!(view, code, detail, next_step, "view halted, nothing more is applied");
                self.halted.notify_one();
            }
            HaltIs::Another => tracing::error!(view, code, detail, next_step, "view has another reason to be halted"),
            HaltIs::Known => {}
        }
    }

    /// Returns once when the view halts: whatever is consumed has to be let go then.
    pub async fn until_halted(&self) {
        self.halted.notified().await;
    }

    /// Leaves a halt of that code, whose reason is gone; tells whether the view goes on.
    pub fn end_halt(&self, code: &str) -> bool {
        self.change(|conditions| conditions.end_halt(code))
    }

    /// Whether the view has stopped for good, as far as it knows.
    pub fn is_halted(&self) -> bool {
        matches!(self.lock().snapshot.state, ViewState::Halted(_))
    }

    /// Changes what is known, and says so once if another state follows from it.
    fn change<T>(&self, change: impl FnOnce(&mut Conditions) -> T) -> T {
        let (changed, from, to) = {
            let mut known = self.lock();
            let changed = change(&mut known.conditions);
            let (state, reason) = (known.conditions.state(), known.conditions.reason().map(str::to_owned));
            let Known { snapshot, said, .. } = &mut *known;
            if snapshot.reason != reason {
                snapshot.reason = reason.clone();
            }
            // It may come to wait for something else without having gone on in between.
            let is_said = said.contains(reason.as_deref().unwrap_or_default()) || said.len() >= MOST_SAID;
            if snapshot.state == state && (is_said || !state.is_waiting()) {
                return changed;
            }
            if snapshot.state != state {
                snapshot.since = Timestamp::now();
                said.clear();
            }
            said.extend(reason.clone());
            let from = std::mem::replace(&mut snapshot.state, state.clone());
            (changed, from.as_str(), (state, reason.unwrap_or_default()))
        };
        let (view, (state, reason)) = (self.view, to);
        match &state {
            ViewState::WaitingForDatabase | ViewState::WaitingForKafka | ViewState::WaitingForRegistry => {
                tracing::warn!(view, state = state.as_str(), reason, "view waits, partitions are kept");
            }
            ViewState::Running => tracing::info!(view, from, "view is running"),
            // Told by who halts it, and by who stops it.
            ViewState::Halted(_) | ViewState::Stopping => {}
            ViewState::Starting | ViewState::NotProjecting => {
                tracing::info!(view, from, state = state.as_str(), "view waits no more");
            }
        }
        changed
    }

    /// Changes what is known of one owned partition; does nothing for a partition that is not owned.
    pub fn update_partition(&self, partition: Partition, change: impl FnOnce(&mut OwnedPartition)) {
        if let Some(owned) = self.lock().snapshot.partitions.get_mut(&partition) {
            change(owned);
        }
    }

    /// Records that this process owns `partition` from now on. A partition tried again at the same place stays paused
    /// until it has moved, so that nobody sees it flicker.
    pub fn own(&self, partition: Partition, mut owned: OwnedPartition) {
        let partitions = &mut self.lock().snapshot.partitions;
        if let Some(before) = partitions.get(&partition).filter(|before| before.next_offset == owned.next_offset) {
            owned.paused = before.paused.clone().filter(Pause::lasts);
        }
        partitions.insert(partition, owned);
    }

    /// Records that this process lets go of `partition`.
    pub fn disown(&self, partition: Partition) {
        self.lock().snapshot.partitions.remove(&partition);
    }

    /// Records that nobody here is left to consume anything.
    pub fn disown_all(&self) {
        self.lock().snapshot.partitions.clear();
    }

    /// Records why dead letters wait in their table, or that they flow.
    pub fn dead_letters_wait(&self, why: Option<String>) {
        self.lock().snapshot.dead_letters_wait = why;
    }

    /// Publishes a new observation of the lag, whose ends were asked for after `asked`.
    pub fn observe_lags(&self, asked: Instant, at: Timestamp, lags: Vec<PartitionLag>) {
        let snapshot = &mut self.lock().snapshot;
        snapshot.ends_asked_at = Some(asked);
        snapshot.lags = Some((at, lags));
    }

    /// Whether this process commits everything: it projects the view, and every partition of the topic is its own.
    pub fn commits_everything(&self) -> bool {
        let known = self.lock();
        let StatusSnapshot { state, lags, partitions, .. } = &known.snapshot;
        *state != ViewState::NotProjecting
            && lags
                .as_ref()
                .is_some_and(|(_, lags)| lags.iter().all(|lag| partitions.contains_key(&lag.position.partition)))
    }

    /// Records that the build had yet to apply when its lag was observed last.
    pub fn records_behind(&self) -> i64 {
        let known = self.lock();
        known.snapshot.lags.as_ref().map_or(0, |(_, lags)| lags.iter().map(|lag| lag.lag).sum())
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
