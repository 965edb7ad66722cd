//! Histories of partitions, lateness, idleness and restarts against a plain fold.
//!
//! The driver reads logs as a service does: it pushes what lies behind its positions, closes windows, and keeps positions,
//! `closed_until` and what came out together, or nothing of it (a kill).

use std::collections::{BTreeMap, BTreeSet};

use super::support::*;
use crate::plan::{Bounds, Prepared, Window};
use crate::run::Execution;

/// In an ordinary run; `STREAMVIEW_HISTORIES=10000` for many.
const HISTORIES: u64 = 2_000;
const LATENESS: i64 = 5_000;
const PARTITIONS: i32 = 3;

/// Numbers that are the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }

    fn one_in(&mut self, most: u64) -> bool {
        self.below(most) == 0
    }

    fn signed(&mut self, most: u64) -> i64 {
        i64::try_from(self.below(most)).unwrap()
    }
}

/// What a window has for a customer: how many, their sum, how many different quantities.
type Groups = BTreeMap<String, (i64, i64, usize)>;

/// The plain fold over the rows of a window.
fn fold<'a>(orders: impl Iterator<Item = &'a Order>, start: i64, size: i64) -> Groups {
    let mut found: BTreeMap<String, (i64, i64, BTreeSet<i32>)> = BTreeMap::new();
    for order in orders {
        let (Some(time), Some(quantity)) = (order.time, order.quantity) else { continue };
        if (start..start + size).contains(&time) && quantity != 0 {
            let group = found.entry(order.customer.clone()).or_default();
            group.0 += 1;
            group.1 += i64::from(quantity);
            group.2.insert(quantity);
        }
    }
    found.into_iter().map(|(customer, (count, sum, different))| (customer, (count, sum, different.len()))).collect()
}

/// One history.
struct History<'a> {
    chance: Chance,
    prepared: &'a Prepared,
    window: Window,
    logs: Vec<Vec<Order>>,
    /// What would be in Kafka: positions, `closed_until`, windows that were written with what.
    positions: Vec<usize>,
    closed_until: Option<i64>,
    written: BTreeMap<i64, Groups>,
    kills: usize,
    rows: usize,
}

/// Whether rows come later than they may, and partitions fall idle while rows are still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    InTime,
    Unruly,
}

impl<'a> History<'a> {
    fn new(seed: u64, kind: Kind, prepared: &'a Prepared) -> History<'a> {
        let mut chance = Chance(seed);
        let partitions = 1 + chance.signed(PARTITIONS.unsigned_abs().into());
        let jitter = if kind == Kind::InTime { 5_001 } else { 90_000 };
        let mut logs = Vec::new();
        for partition in 0..partitions {
            let skew = chance.signed(60_000);
            let step = 1 + chance.below(9_000);
            let mut time = T + skew;
            let mut log = Vec::new();
            for offset in 0..chance.signed(40) {
                time += chance.signed(step);
                log.push(Order {
                    partition: i32::try_from(partition).unwrap(),
                    offset,
                    customer: format!("c{}", chance.below(4)),
                    // With a quantity of zero the condition fails.
                    quantity: Some(if chance.one_in(60) { 0 } else { 1 + i32::try_from(chance.signed(7)).unwrap() }),
                    time: Some(time - chance.signed(jitter)),
                });
            }
            logs.push(log);
        }
        let rows = logs.iter().map(Vec::len).sum();
        History {
            chance,
            prepared,
            window: prepared.window().unwrap(),
            positions: vec![0; logs.len()],
            logs,
            closed_until: None,
            written: BTreeMap::new(),
            kills: 0,
            rows,
        }
    }

    fn partitions(&self) -> Vec<i32> {
        (0..i32::try_from(self.logs.len()).unwrap()).collect()
    }

    fn begun(&self) -> Execution {
        let mut query = self.prepared.start(Bounds::default()).unwrap();
        query.assign(0, &self.partitions());
        if let Some(closed_until) = self.closed_until {
            query.resume(closed_until);
        }
        query
    }

    /// Runs until all is read and closed.
    async fn run(&mut self, kind: Kind) {
        let mut query = self.begun();
        let mut read = self.positions.clone();
        loop {
            let at = usize::try_from(self.chance.below(self.logs.len() as u64)).unwrap();
            let most = 1 + usize::try_from(self.chance.below(12)).unwrap();
            let end = (read[at] + most).min(self.logs[at].len());
            if read[at] < end {
                let pushed = query.push(0, rows(&self.logs[at][read[at]..end]), NOW).await.unwrap();
                let failing = self.logs[at][read[at]..end].iter().filter(|order| order.quantity == Some(0));
                let failing: BTreeSet<i64> = failing.map(|order| order.offset).collect();
                let refused: BTreeSet<i64> = pushed.refused.iter().map(|refused| refused.offset).collect();
                assert!(refused.is_subset(&failing) && pushed.future.is_empty());
                read[at] = end;
            }
            let done = read.iter().zip(&self.logs).all(|(read, log)| *read == log.len());
            if kind == Kind::Unruly && self.chance.one_in(6) || done {
                let idle = if done { self.partitions() } else { vec![i32::try_from(at).unwrap()] };
                for partition in idle {
                    if read[partition as usize] == self.logs[partition as usize].len() || kind == Kind::Unruly {
                        query.idle(0, partition);
                    }
                }
            }
            let out = query.close(NOW).await.unwrap();
            if self.chance.one_in(12) && self.kills < 6 {
                // Nothing of this was kept.
                self.kills += 1;
                query = self.begun();
                read.clone_from(&self.positions);
                continue;
            }
            self.keep(&query, &read, &out);
            if done {
                break;
            }
        }
    }

    /// One transaction.
    fn keep(&mut self, query: &Execution, read: &[usize], out: &[crate::run::Output]) {
        let before = self.closed_until;
        let mut found: BTreeMap<i64, Groups> = BTreeMap::new();
        for output in out {
            let (start, end) = output.window.unwrap();
            assert_eq!(end - start, self.window.size_ms);
            for line in batch_lines(&output.rows) {
                let values: Vec<&str> = line.split('|').collect();
                let group = (values[1].parse().unwrap(), values[2].parse().unwrap(), values[3].parse().unwrap());
                let twice = found.entry(start).or_default().insert(values[0].to_owned(), group);
                assert!(twice.is_none(), "a group twice in one window");
            }
        }
        self.closed_until = query.closed_until().or(self.closed_until);
        // Every window that was closed by this holds what was read before, no more and no less.
        let seen = || self.logs.iter().zip(read).flat_map(|(log, read)| &log[..*read]);
        let Window { size_ms, slide_ms } = self.window;
        let first = T - 20 * 60_000;
        let closed = self.closed_until.unwrap_or(first);
        let from = before.map_or(first, |before| before - size_ms + slide_ms);
        let mut start = from;
        while start + size_ms <= closed.min(T + 40 * 60_000) {
            let expected = fold(seen(), start, size_ms);
            let has = found.remove(&start).unwrap_or_default();
            assert_eq!(has, expected, "window {start}");
            if !expected.is_empty() {
                assert!(self.written.insert(start, expected).is_none(), "window {start} was written twice");
            }
            start += slide_ms;
        }
        assert!(found.is_empty(), "windows that are not closed: {found:?}");
        let held = query.held_from();
        for (at, read) in read.iter().enumerate() {
            let held =
                held.get(&(0, i32::try_from(at).unwrap())).map_or(*read, |offset| usize::try_from(*offset).unwrap());
            self.positions[at] = held.min(*read);
        }
    }

    /// All windows are written, and hold all rows.
    fn check_complete(&self) {
        let all = || self.logs.iter().flatten();
        let Window { size_ms, slide_ms } = self.window;
        let mut start = T - 20 * 60_000;
        while start < T + 40 * 60_000 {
            let expected = fold(all(), start, size_ms);
            assert_eq!(self.written.get(&start).cloned().unwrap_or_default(), expected, "window {start}");
            start += slide_ms;
        }
    }
}

const TUMBLING: &str = "select customer, count(*) as n, sum(quantity) as q, count(distinct quantity) as d from orders \
                        where 100 / quantity > 0 group by customer, tumble(ts, interval '1 minute')";
const HOPPING: &str = "select customer, count(*) as n, sum(quantity) as q, count(distinct quantity) as d from orders \
                       where 100 / quantity > 0 group by customer, hop(ts, interval '30 seconds', interval '90 seconds')";

/// In time: each window once, with all rows that it has, whatever the order, the partitions and the restarts. Unruly (too late,
/// idle too early): each window once, with exactly what was read before it was closed.
#[tokio::test]
async fn histories_are_as_a_plain_fold_says() {
    let queries = [prepared(TUMBLING), prepared(HOPPING)];
    let (mut kills, mut written, mut rows) = (0, 0, 0);
    let histories = std::env::var("STREAMVIEW_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(HISTORIES);
    for seed in 0..histories {
        let kind = if seed % 3 == 0 { Kind::Unruly } else { Kind::InTime };
        let mut history = History::new(seed, kind, &queries[usize::from(seed % 2 == 0)]);
        history.run(kind).await;
        if kind == Kind::InTime {
            history.check_complete();
        }
        kills += history.kills;
        written += history.written.len();
        rows += history.rows;
    }
    println!("{histories} histories, {rows} rows, {kills} kills, {written} windows, {LATENESS} ms of lateness");
    assert!(kills > usize::try_from(histories / 5).unwrap() && written > usize::try_from(histories).unwrap());
}
