//! How far the time of each partition has come, and with them the watermark.

use std::collections::BTreeMap;

/// A partition: number of the source, number in its topic.
pub(crate) type Partition = (usize, i32);

#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    /// Largest time that was seen, minus the source's lateness. Nothing before its first row: then it holds the watermark back.
    time: Option<i64>,
    /// Read to its end, and nothing comes.
    is_idle: bool,
}

/// The partitions that are read.
#[derive(Debug, Default)]
pub(crate) struct Clocks(BTreeMap<Partition, Clock>);

/// What the partitions say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// Some partition has not said anything yet, or there is none.
    Unknown,
    /// All have come so far.
    At(i64),
    /// Nothing comes any more anywhere.
    Idle,
}

impl Clocks {
    pub(crate) fn assign(&mut self, source: usize, partitions: &[i32]) {
        self.0.retain(|(of, partition), _| *of != source || partitions.contains(partition));
        for partition in partitions {
            self.0.entry((source, *partition)).or_default();
        }
    }

    pub(crate) fn idle(&mut self, source: usize, partition: i32) {
        if let Some(clock) = self.0.get_mut(&(source, partition)) {
            clock.is_idle = true;
        }
    }

    /// None is idle any more.
    pub(crate) fn wake(&mut self) {
        self.0.values_mut().for_each(|clock| clock.is_idle = false);
    }

    /// A row was seen.
    pub(crate) fn move_to(&mut self, partition: Partition, time: i64) {
        let clock = self.0.entry(partition).or_default();
        clock.time = Some(clock.time.map_or(time, |before| before.max(time)));
        clock.is_idle = false;
    }

    /// The least of those that are not idle.
    pub(crate) fn time(&self) -> Time {
        if !self.0.is_empty() && self.0.values().all(|clock| clock.is_idle) {
            return Time::Idle;
        }
        let active = self.0.values().filter(|clock| !clock.is_idle);
        // None is less than any time.
        active.map(|clock| clock.time).min().flatten().map_or(Time::Unknown, Time::At)
    }
}
