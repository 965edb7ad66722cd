//! Puts what was read of several partitions into one order that keeps the order of every key. Pure.
//!
//! The events of a key nearly always come from one partition, whose ledger rows are in order. They may come from two where the
//! topic has grown. Then the row before a row may stand in another partition, and has to come first, even where only a part
//! of that partition was read.

use std::collections::HashMap;

use crate::domain::changes::{Cut, Place};
use crate::domain::units::{Partition, Sequence};
use crate::store::changes::{Ahead, Earlier, Entry};

/// What was read of each partition that is ahead: its rows in order.
pub struct Read {
    queues: Vec<Queue>,
}

struct Queue {
    ahead: Ahead,
    entries: Vec<(Entry, Place)>,
    /// Whether more rows follow before `ahead.until`.
    goes_on: bool,
    /// The row that each waits for, if that stands in another partition.
    waits_for: Vec<Option<Earlier>>,
}

/// What can be told.
#[derive(Debug)]
pub struct Merged {
    /// The rows, in an order that keeps that of every key.
    pub entries: Vec<(Entry, Place)>,
    /// How far that is.
    pub cut: Cut,
    /// Whether that is all there was.
    pub is_all: bool,
}

impl Read {
    /// `entries` are up to `limit + 1` rows of each partition, by partition, commit, key and sequence.
    pub fn new(ahead: &[Ahead], entries: Vec<Entry>, limit: usize) -> Read {
        let mut by_partition: HashMap<Partition, Vec<Entry>> = HashMap::new();
        for entry in entries {
            by_partition.entry(entry.partition).or_default().push(entry);
        }
        let queue =
            |ahead: &Ahead| Queue::new(*ahead, by_partition.remove(&ahead.partition).unwrap_or_default(), limit);
        let mut read = Read { queues: ahead.iter().map(queue).collect() };
        read.link();
        read
    }

    /// Has rows wait for rows of other partitions among those that were read.
    fn link(&mut self) {
        if self.queues.len() < 2 {
            return;
        }
        let mut rows: Vec<(&str, Sequence, usize, usize)> = Vec::new();
        for (number, queue) in self.queues.iter().enumerate() {
            let places = queue.entries.iter().enumerate();
            rows.extend(places.map(|(place, (entry, _))| (entry.key.as_str(), entry.sequence, number, place)));
        }
        rows.sort_unstable();
        let mut found = Vec::new();
        for pair in rows.windows(2) {
            let [(key, _, queue, place), (next_key, _, next_queue, next_place)] = pair else { continue };
            if key == next_key && queue != next_queue {
                found.push(((*next_queue, *next_place), self.earlier(*queue, *place)));
            }
        }
        for ((queue, place), earlier) in found {
            self.queues[queue].waits_for[place] = Some(earlier);
        }
    }

    fn earlier(&self, queue: usize, place: usize) -> Earlier {
        let (entry, _) = &self.queues[queue].entries[place];
        Earlier { partition: entry.partition, commit: entry.commit, sequence: entry.sequence }
    }

    /// The rows whose predecessor was not read, and may stand in a part of another partition that was not read. Nearly
    /// always there are none: only one partition is ahead, or all of each was read.
    pub fn open(&self) -> Vec<(usize, usize)> {
        if self.queues.len() < 2 || !self.queues.iter().any(|queue| queue.goes_on) {
            return Vec::new();
        }
        let mut open = Vec::new();
        for (number, queue) in self.queues.iter().enumerate() {
            let mut last: HashMap<&str, Sequence> = HashMap::new();
            for (place, (entry, _)) in queue.entries.iter().enumerate() {
                let ours = last.insert(&entry.key, entry.sequence);
                let theirs = queue.waits_for[place].map(|earlier| earlier.sequence);
                // The latest that was read of the key may be far behind: what stands between was not read.
                if ours.max(theirs).is_none_or(|last| last.next() != entry.sequence) {
                    open.push((number, place));
                }
            }
        }
        open
    }

    /// Key and number of a row that [`Read::open`] has named.
    pub fn row(&self, (queue, place): (usize, usize)) -> (&str, Sequence) {
        let (entry, _) = &self.queues[queue].entries[place];
        (&entry.key, entry.sequence)
    }

    /// That row comes after this one.
    pub fn wait(&mut self, (queue, place): (usize, usize), earlier: Earlier) {
        let queue = &mut self.queues[queue];
        queue.waits_for[place] = (earlier.partition != queue.ahead.partition).then_some(earlier);
    }

    /// Everything whose turn has come. If anything was read, that is never nothing: the first row of the earliest
    /// transaction that is ahead waits for nothing. Where rows wait in a circle, because a key was lost and mended behind what
    /// came after it, one of them goes first.
    pub fn merge(self, mut cut: Cut) -> Merged {
        let mut told = vec![0; self.queues.len()];
        let mut order: Vec<(usize, usize)> = Vec::new();
        loop {
            let before = order.len();
            for (number, queue) in self.queues.iter().enumerate() {
                while let Some((entry, place)) = queue.entries.get(told[number]) {
                    let waits_for = queue.waits_for[told[number]];
                    if waits_for.is_some_and(|earlier| self.is_ahead(&entry.key, earlier, &told)) {
                        break;
                    }
                    cut.pass(place);
                    order.push((number, told[number]));
                    told[number] += 1;
                }
            }
            if order.len() > before {
                continue;
            }
            let Some(number) = self.in_a_circle(&told) else { break };
            cut.pass(&self.queues[number].entries[told[number]].1);
            order.push((number, told[number]));
            told[number] += 1;
        }
        let mut is_all = true;
        for (queue, told) in self.queues.iter().zip(&told) {
            if *told == queue.entries.len() && !queue.goes_on {
                cut.reach(queue.ahead.partition, queue.ahead.until);
            } else {
                is_all = false;
            }
        }
        let mut taken: Vec<Vec<Option<(Entry, Place)>>> =
            self.queues.into_iter().map(|queue| queue.entries.into_iter().map(Some).collect()).collect();
        let entries = order.into_iter().filter_map(|(queue, place)| taken[queue][place].take()).collect();
        Merged { entries, cut, is_all }
    }

    /// A partition whose next row waits for one that comes behind itself, by way of other partitions. What waits for a part that was
    /// not read is in no circle yet.
    fn in_a_circle(&self, told: &[usize]) -> Option<usize> {
        let waits_for = |number: usize| -> Option<usize> {
            let queue = &self.queues[number];
            let earlier = (*queue.waits_for.get(told[number])?)?;
            let next = self.queues.iter().position(|queue| queue.ahead.partition == earlier.partition)?;
            (told[next] < self.queues[next].entries.len()).then_some(next)
        };
        (0..self.queues.len()).find(|number| {
            let mut at = waits_for(*number);
            for _ in 0..self.queues.len() {
                match at {
                    Some(next) if next == *number => return true,
                    Some(next) => at = waits_for(next),
                    None => return false,
                }
            }
            false
        })
    }

    /// Whether a row of `key` is yet to be told.
    fn is_ahead(&self, key: &str, earlier: Earlier, told: &[usize]) -> bool {
        let Some(number) = self.queues.iter().position(|queue| queue.ahead.partition == earlier.partition) else {
            // All of that partition was told before.
            return false;
        };
        let queue = &self.queues[number];
        let it = (earlier.commit, key, earlier.sequence);
        let at = |place: usize| {
            let (entry, _) = &queue.entries[place];
            (entry.commit, entry.key.as_str(), entry.sequence)
        };
        if told[number] < queue.entries.len() {
            return it >= at(told[number]);
        }
        queue.goes_on && queue.entries.len().checked_sub(1).is_none_or(|last| it > at(last))
    }
}

impl Queue {
    fn new(ahead: Ahead, mut entries: Vec<Entry>, limit: usize) -> Queue {
        let goes_on = entries.len() > limit;
        let mut placed = Vec::with_capacity(entries.len());
        let mut rank = ahead.from.rows;
        let mut commit = ahead.from.commit + 1;
        let commits: Vec<i64> = entries.iter().map(|entry| entry.commit).collect();
        entries.truncate(limit);
        for (number, entry) in entries.into_iter().enumerate() {
            if entry.commit != commit {
                (commit, rank) = (entry.commit, 0);
            }
            rank += 1;
            let is_last = commits.get(number + 1) != Some(&commit);
            let place = Place { partition: ahead.partition, commit, rank, is_last };
            placed.push((entry, place));
        }
        let waits_for = vec![None; placed.len()];
        Queue { ahead, entries: placed, goes_on, waits_for }
    }
}

#[cfg(test)]
#[path = "merge/tests.rs"]
mod tests;
