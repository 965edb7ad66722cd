//! The partitions that a job reads: how far, and whether they are silent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::log::{Batch, Place, Reader};
use crate::run::Execution;

/// Longer than any turn of a job that is well: it waits for records for a tenth of a second, and commits in less than one.
const STANDSTILL: Duration = Duration::from_secs(5);
/// So long it is asked in a turn which partitions are silent: they may be many, and each is a question to a broker.
const QUESTIONS: Duration = Duration::from_millis(200);

/// How far a partition was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// The offset that comes next.
    pub next: i64,
    /// Below this offset everything was judged by an earlier run.
    pub judged: i64,
    /// Below this one by a run of the same text.
    pub judged_alike: i64,
    /// Offsets of rows that were from the future when they were read first.
    pub future: BTreeSet<i64>,
    /// Since when it is read to its end, and says nothing of the time.
    caught_up: Option<Instant>,
    /// What was there when it had been silent for so long: it is silent once that is read, too.
    end: Option<i64>,
    is_idle: bool,
}

impl Progress {
    /// Forgets rows from the future below an offset: they are not read again.
    pub fn forget_future(&mut self, below: i64) {
        if self.future.first().is_some_and(|first| *first < below) {
            self.future = self.future.split_off(&below);
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub all: BTreeMap<Place, Progress>,
    /// When it was looked last which of them are silent.
    looked: Option<Instant>,
    /// Nobody is asked before, as somebody was asked in vain.
    asks_again: Option<Instant>,
}

impl Places {
    /// One that is read from `next` on. `judged`: up to where it was, by whatever text and by this one.
    pub fn add(&mut self, place: Place, next: i64, (judged, judged_alike): (i64, i64), future: BTreeSet<i64>) {
        self.all.insert(place, Progress { next, judged, judged_alike, future, ..Progress::default() });
    }

    /// Notes a row that is from the future, and will not be when it is read again.
    pub fn note_future(&mut self, place: Place, offset: i64) {
        if let Some(progress) = self.all.get_mut(&place) {
            progress.future.insert(offset);
        }
    }

    /// Whether a row is read again that was from the future.
    pub fn was_future(&self, place: Place, offset: i64) -> bool {
        self.all.get(&place).is_some_and(|progress| offset < progress.judged && progress.future.contains(&offset))
    }

    /// Whether a row was judged by an earlier run: it is read again for the sake of an open window only.
    pub fn is_judged(&self, place: Place, offset: i64) -> bool {
        self.all.get(&place).is_some_and(|progress| offset < progress.judged)
    }

    /// Likewise by a run of the same text.
    pub fn is_judged_alike(&self, place: Place, offset: i64) -> bool {
        self.all.get(&place).is_some_and(|progress| offset < progress.judged_alike)
    }

    /// Notes what was read. `moved`: where a row said how late it is. Only that ends a silence: what is set aside, or is no row,
    /// moves no clock, and would keep every window open for as long as it comes.
    ///
    /// Gives whether a partition ended behind something that is no record: that is a step to be kept, too.
    pub fn note(&mut self, batch: &Batch, moved: &BTreeSet<Place>, now: Instant) -> bool {
        let mut has_stepped = false;
        for record in batch.records() {
            if let Some(progress) = self.all.get_mut(&record.place) {
                progress.next = record.offset + 1;
            }
        }
        for place in moved {
            if let Some(progress) = self.all.get_mut(place) {
                (progress.caught_up, progress.end, progress.is_idle) = (None, None, false);
            }
        }
        for (place, next) in &batch.ends {
            if let Some(progress) = self.all.get_mut(place) {
                has_stepped |= *next > progress.next;
                progress.next = progress.next.max(*next);
                progress.caught_up.get_or_insert(now);
            }
        }
        has_stepped
    }

    /// Whether all that an earlier run has judged was read again. Until then no window may close: a row that came late by its
    /// own partition was still counted where another partition held its window open, and the one may be read again sooner now
    /// than the other.
    pub fn are_where_they_were(&self) -> bool {
        self.all.values().all(|progress| progress.next >= progress.judged)
    }

    /// Tells the query of partitions that are read to their end and have been silent for so long since. One that we are slow to read
    /// is none of them, nor is one of which not all can be read: it holds windows open.
    ///
    /// | when it has been silent for so long | |
    /// |---|---|
    /// | all is read that was written by then | it is idle |
    /// | there is more, perhaps of a transaction that is open | it is idle as soon as that is passed, if none of it ends its silence |
    /// | nobody answers | it has to be silent for as long once more, and is asked again then |
    pub fn tell_idle(&mut self, execution: &mut Execution, reader: &mut dyn Reader, silence: Duration, now: Instant) {
        if !execution.has_windows() {
            return;
        }
        self.listen_anew(execution, now);
        let began = Instant::now();
        let mut may_ask = self.asks_again.is_none_or(|at| now >= at);
        for (place, progress) in &mut self.all {
            let is_long = progress.caught_up.is_some_and(|since| now.duration_since(since) >= silence);
            if progress.is_idle || !is_long {
                continue;
            }
            if progress.end.is_none() && may_ask {
                match reader.end(*place) {
                    Ok(end) => progress.end = Some(end),
                    Err(error) => {
                        let partition = place.partition;
                        tracing::debug!(partition, error = %error, "whether a partition is silent is not known");
                        progress.caught_up = Some(now);
                        // It was waited for, and others may be with it: the query has to go on meanwhile.
                        self.asks_again = Some(now + began.elapsed() + STANDSTILL);
                    }
                }
                // Who is not asked now is in the next turn.
                may_ask = progress.end.is_some() && began.elapsed() < QUESTIONS;
            }
            if progress.end.is_some_and(|end| progress.next >= end) {
                progress.is_idle = true;
                execution.idle(place.topic, place.partition);
            }
        }
        // Its own questions are no standstill.
        self.looked = Some(now + began.elapsed());
    }

    /// Who stood still (the process was halted, a commit or a reader of rows took long) has heard nobody meanwhile: of a turn, no more
    /// counts as silence than one may take, and what was idle is so only if there is nothing to be read of it.
    fn listen_anew(&mut self, execution: &mut Execution, now: Instant) {
        let turn = self.looked.map(|before| now.saturating_duration_since(before));
        let Some(unheard) = turn.and_then(|turn| turn.checked_sub(STANDSTILL)) else { return };
        execution.wake();
        for progress in self.all.values_mut() {
            if let Some(since) = progress.caught_up.as_mut().filter(|_| !progress.is_idle) {
                *since += unheard;
            }
            (progress.is_idle, progress.end) = (false, None);
        }
    }
}
