//! What a lane asks of whoever turns its records into rows. The lane owns partitions, fence, retries and bisection, and
//! knows no key; an applier knows its keys (or windows), and nothing of the group.

use std::collections::BTreeMap;
use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::domain::counters::Counters;
use crate::domain::units::{Epoch, Micros, NextOffset, Offset, Partition};

use crate::domain::record::{Record, RecordBatch};
use crate::failure::{Failure, Halt};
use crate::projector::context::SkippedRanges;
use crate::status::Pause;
use crate::store::Connection;
use crate::store::progress::{Advance, Stored};
use crate::telemetry::traces::Steps;

/// A partition that a lane owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// The assignment: records of another generation are not ours.
    pub generation: u64,
    /// Our fencing number.
    pub owner_epoch: Epoch,
    /// First offset not applied yet.
    pub next_offset: NextOffset,
    /// How often something had been decided when our keys were loaded.
    pub decisions: i64,
    /// The number of the partition's last commit. Only its owner raises it, so the next one is known beforehand.
    pub commits: i64,
}

/// The partitions of a lane.
pub type Partitions = BTreeMap<Partition, Owned>;

impl Owned {
    /// Goes on from where the partition stands in Postgres, if it is still ours there; else `false`, and it has to be taken over.
    ///
    /// A Postgres that has less than we saw committed is another one (a standby that was promoted before it had all), or lost
    /// the last moments in a crash (`synchronous_commit` off). What it lacks was taken from Kafka already and would be passed
    /// over: such a partition is none of ours any more.
    pub fn goes_on_from(&mut self, view: &str, stored: &Stored) -> bool {
        if stored.owner_epoch != self.owner_epoch {
            return false;
        }
        let (partition, had, has) = (stored.partition.0, self.next_offset.0, stored.next_offset.0);
        if has < had {
            tracing::warn!(view, partition, had, has, "postgres has lost commits, their records are read again");
            return false;
        }
        (self.next_offset, self.decisions, self.commits) = (stored.next_offset, stored.decisions, stored.commits);
        true
    }

    /// Where the partition stands, as a move of nothing.
    pub fn stand(&self, partition: Partition) -> Advance {
        Advance {
            partition,
            expected_offset: self.next_offset,
            owner_epoch: self.owner_epoch,
            next_offset: self.next_offset,
            anchor: None,
            counters: Counters::default(),
            decisions: self.decisions,
            commit: self.commits + 1,
            odd_times: 0,
        }
    }
}

/// A partition that had to stop before a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Partition.
    pub partition: Partition,
    /// Offset of that record.
    pub offset: Offset,
    /// Why.
    pub why: String,
}

/// What one attempt has committed.
#[derive(Debug, Default)]
pub struct Done {
    /// How each partition moved.
    pub advances: Vec<Advance>,
    /// Partitions that stopped before a record.
    pub blocked: Vec<Blocked>,
}

/// What an applier says about a record that Postgres did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The next attempt will differ: the same part again.
    Settled,
    /// It is one of several records: fewer of them.
    Halve,
    /// A key is to heal ahead of the record: no records in the next attempt, then these again.
    KeyFirst,
}

/// The part of a batch that the next attempt is about.
#[derive(Debug)]
pub struct Part<'a> {
    /// The batch.
    pub batch: &'a RecordBatch,
    /// First record not done.
    pub start: usize,
    /// One past the last record of the attempt.
    pub end: usize,
    /// The lane's partitions.
    pub owned: &'a Partitions,
    /// What operators have skipped.
    pub skipped: &'a SkippedRanges,
}

/// How the partitions of an attempt end: what became of their records, and where they had to stop.
pub struct Outcomes<'p> {
    /// Counters by partition.
    pub counters: &'p BTreeMap<Partition, Counters>,
    /// Partitions that had to stop before a record, with its offset and why.
    pub blocked: &'p BTreeMap<Partition, (Offset, String)>,
    /// Partitions with something to write although they may have no record.
    pub touched: &'p dyn Fn(Partition) -> bool,
}

impl<'a> Part<'a> {
    /// How many records of the batch it spans, ours or not.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether it spans no record.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Its records that are ours, not applied yet and not given up, with their place in the part.
    pub fn records(&self) -> impl Iterator<Item = (usize, Record<'a>)> {
        let is_skipped = |partition: Partition, offset: Offset| {
            let ranges = self.skipped.get(&partition);
            ranges.is_some_and(|ranges| ranges.iter().any(|range| range.covers(offset)))
        };
        let all = self.batch.iter().skip(self.start).take(self.len()).enumerate();
        // A client that fetches anew may bring a record twice: offsets only grow.
        let mut expected: BTreeMap<Partition, NextOffset> = BTreeMap::new();
        all.filter_map(move |(index, (generation, record))| {
            let owned = self.owned.get(&record.partition).filter(|owned| owned.generation == generation)?;
            let next = expected.entry(record.partition).or_insert(owned.next_offset);
            let is_new = !next.is_past(record.offset);
            *next = (*next).max(record.offset.next());
            (is_new && !is_skipped(record.partition, record.offset)).then_some((index, record))
        })
    }

    /// How far each partition moves.
    pub fn advances(&self, outcomes: &Outcomes<'_>) -> Vec<Advance> {
        let mut advances: BTreeMap<Partition, Advance> = BTreeMap::new();
        // The last record taken of each partition becomes its anchor.
        let mut last: BTreeMap<Partition, Record<'_>> = BTreeMap::new();
        let mut odd_times: BTreeMap<Partition, u64> = BTreeMap::new();
        for (_, record) in self.records() {
            let stop = outcomes.blocked.get(&record.partition);
            if stop.is_none_or(|(offset, _)| record.offset < *offset) {
                last.insert(record.partition, record);
                if record.timestamp_ms.is_some_and(|time| Micros::from_millis(time).is_none()) {
                    *odd_times.entry(record.partition).or_default() += 1;
                }
            }
        }
        for (partition, owned) in self.owned {
            let counters = outcomes.counters.get(partition).copied().unwrap_or_default();
            let taken = last.get(partition);
            if taken.is_none() && counters == Counters::default() && !(outcomes.touched)(*partition) {
                continue;
            }
            let mut advance = owned.stand(*partition);
            advance.counters = counters;
            if let Some(record) = taken {
                advance.next_offset = record.offset.next();
                advance.anchor = Some(record.anchor());
                advance.odd_times = odd_times.get(partition).copied().unwrap_or(0);
            }
            advances.insert(*partition, advance);
        }
        if self.end == self.batch.len() {
            self.reach_ends(outcomes, &mut advances);
        }
        advances.into_values().collect()
    }

    /// Past control records and aborted transactions, which only the end of the partition tells of.
    fn reach_ends(&self, outcomes: &Outcomes<'_>, advances: &mut BTreeMap<Partition, Advance>) {
        for end in self.batch.ends() {
            let owned = self.owned.get(&end.partition).filter(|owned| owned.generation == end.generation);
            let Some(owned) = owned else { continue };
            let reached = advances.get(&end.partition).map_or(owned.next_offset, |advance| advance.next_offset);
            if end.next_offset > reached && !outcomes.blocked.contains_key(&end.partition) {
                let advance = advances.entry(end.partition).or_insert_with(|| owned.stand(end.partition));
                advance.next_offset = end.next_offset;
            }
        }
    }
}

/// Applies the records of one lane.
pub trait Applier: Send + Sized + 'static {
    /// What it can be asked to do without records.
    type Errand: Send + 'static;
    /// One batch on its way: what an attempt leaves for the next one.
    type Course: Send + Sync;

    /// A batch, or an errand, sets out.
    fn set_out(errand: Option<Self::Errand>) -> Self::Course;

    /// Whether something is left to do when all records are done.
    fn has_more(course: &Self::Course) -> bool;

    /// Two courses that have only something left to do go on as one.
    fn join(course: Self::Course, other: Self::Course) -> Self::Course;

    /// The next attempt tries less at once, beside fewer records.
    fn ease(course: &mut Self::Course);

    /// Makes sure that there is a connection. `true`: it is a new one, and nothing remembered is believed any more.
    fn connect(&mut self) -> impl Future<Output = Result<bool, Failure>> + Send;

    /// Drops the connection.
    fn disconnect(&mut self);

    /// The connection, if there is one.
    fn connection(&self) -> Option<&Connection>;

    /// Tries the part: all of it happens, or nothing. Notes when the steps of it are done.
    fn attempt(
        &mut self,
        part: &Part<'_>,
        course: &mut Self::Course,
        steps: &mut Steps,
    ) -> impl Future<Output = Result<Done, Failure>> + Send;

    /// After [`Failure::Record`] or [`Failure::ReusedEventId`]: finds out which record it was, and what follows.
    fn blame(
        &mut self,
        part: &Part<'_>,
        course: &mut Self::Course,
        failure: Failure,
    ) -> impl Future<Output = Result<Blame, Failure>> + Send;

    /// Forgets what it knows of stored rows: they are not as it believes.
    fn forget(&mut self);

    /// Large batches are over for now: gives back memory that it can do without.
    fn rest(&mut self);

    /// A partition is opened. A halt: that must not happen (again).
    fn opened(&mut self, partition: Partition) -> Result<(), Halt>;

    /// Whether the applier can go on after that failure, as far as its memory is concerned.
    fn survives(&self, failure: &Failure) -> Result<(), Halt>;

    /// Whether the lane may let a partition go, to try it again later.
    fn may_let_go(&self, partition: Partition, pause: &Pause) -> Result<(), Halt>;

    /// Cancelled when no more records are wanted: then [`Applier::finish`] is called, and the lane ends.
    fn enough(&self) -> CancellationToken;

    /// Writes what it has kept.
    fn finish(&mut self, owned: &Partitions) -> impl Future<Output = Result<(), Halt>> + Send;
}
