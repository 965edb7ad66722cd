//! Orders in disorder, and what a plain fold makes of them: what the windows have to hold.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::Message;
use serde_json::Value;
use streamview::config::Config;
use streamview::manager::ports::Kafka;
use streamview::platforms::kafka::topics::Topics;

use crate::bench::{order, values};
use crate::support::world::{TestRecord, World, records};

pub const PARTITIONS: i32 = 3;
const MINUTE: i64 = 60_000;
/// So far out of order rows are that come in time: the lateness of the source.
const DISORDER_MS: i64 = 5_000;
/// Whose rows come last, so late that everything before is closed. They are not counted.
const END: &str = "end";

/// Windows by minute and customer.
pub type Windows<T> = BTreeMap<(i64, String), T>;

/// Rows, and cents.
pub type Sums = (u64, i64);

struct Row {
    minute: i64,
    customer: String,
    cents: i64,
    is_in_time: bool,
}

/// Orders in disorder over all partitions.
#[derive(Default)]
pub struct Orders {
    /// By their ids.
    rows: Vec<Row>,
    /// How far each partition is.
    times: [i64; PARTITIONS as usize],
    /// Nothing comes of this one.
    silent: Option<usize>,
    /// One in so many is minutes late; none where this is 0.
    late: u32,
}

impl Orders {
    /// Some of them come minutes late, and now and then a partition is silent.
    pub fn unruly() -> Orders {
        Orders { late: 40, ..Orders::default() }
    }

    /// Some more: up to five seconds out of order, and those that are late.
    pub fn more(&mut self, count: usize, random: &mut fastrand::Rng) -> Vec<TestRecord> {
        (0..count).map(|_| self.one(random)).collect()
    }

    fn one(&mut self, random: &mut fastrand::Rng) -> TestRecord {
        let mut partition = random.usize(..self.times.len());
        if self.silent == Some(partition) {
            partition = (partition + 1) % self.times.len();
        }
        self.times[partition] += random.i64(0..4_000);
        let is_in_time = self.late == 0 || random.u32(..self.late) > 0;
        let behind = if is_in_time { random.i64(0..DISORDER_MS) } else { random.i64(2 * MINUTE..4 * MINUTE) };
        let ts = (self.times[partition] - behind).max(0);
        let (customer, cents) = (format!("c{}", random.u8(..4)), random.i64(1..100_000));
        let id = i64::try_from(self.rows.len()).unwrap();
        let record = order(i32::try_from(partition).unwrap(), id, &customer, cents, ts);
        self.rows.push(Row { minute: ts / MINUTE, customer, cents, is_in_time });
        record
    }

    /// Another partition is silent from now on, or none. What was silent speaks of what is now, not of what it has slept through.
    pub fn hush(&mut self, random: &mut fastrand::Rng) {
        if let Some(silent) = self.silent.take() {
            self.times[silent] = self.newest();
        }
        // Mostly none: what is silent holds windows open, and it is their closing that is to be seen.
        self.silent = Some(random.usize(..4 * self.times.len())).filter(|partition| *partition < self.times.len());
    }

    fn newest(&self) -> i64 {
        self.times.iter().copied().max().unwrap()
    }

    /// One of each partition, so late that everything before is closed.
    pub fn last(&mut self) -> Vec<TestRecord> {
        let end = self.newest() + 3 * MINUTE;
        self.times = [end; PARTITIONS as usize];
        (0..PARTITIONS).map(|partition| order(partition, -1, END, 1, end)).collect()
    }

    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// What the windows hold in the end, each once, without the rows that were put aside as late.
    pub fn fold(&self, late: &BTreeSet<i64>) -> Windows<Vec<Sums>> {
        let mut fold: Windows<Sums> = BTreeMap::new();
        for (id, row) in self.rows.iter().enumerate() {
            if !late.contains(&i64::try_from(id).unwrap()) {
                let folded = fold.entry((row.minute, row.customer.clone())).or_default();
                *folded = (folded.0 + 1, folded.1 + row.cents);
            }
        }
        fold.into_iter().map(|(key, value)| (key, vec![value])).collect()
    }

    /// How many of these rows came in time, and how many did not.
    pub fn punctual(&self, ids: &BTreeSet<i64>) -> (usize, usize) {
        let in_time = ids.iter().filter(|id| self.rows[usize::try_from(**id).unwrap()].is_in_time).count();
        (in_time, ids.len() - in_time)
    }
}

/// What was committed. A window that was written twice has two entries.
pub fn written(world: &World, output: &str) -> Windows<Vec<Sums>> {
    let mut found: Windows<Vec<Sums>> = BTreeMap::new();
    for value in values(world, output) {
        let minute: jiff::Timestamp = value["minute"].as_str().unwrap().parse().unwrap();
        let customer = value["customer"].as_str().unwrap();
        if customer != END {
            let cents = (value["total"].as_f64().unwrap() * 100.0).round() as i64;
            let key = (minute.as_millisecond() / MINUTE, customer.to_owned());
            found.entry(key).or_default().push((value["n"].as_u64().unwrap(), cents));
        }
    }
    found
}

/// How many rows these windows hold.
pub fn rows_in(windows: &Windows<Vec<Sums>>) -> usize {
    windows.values().flatten().map(|(rows, _)| usize::try_from(*rows).unwrap()).sum()
}

/// The ids of the rows that were put aside as late, each time that one was.
pub async fn put_aside(world: &World, output: &str) -> Vec<i64> {
    let topic = format!("{output}.late");
    if !topics(world).await.contains(&topic) {
        return Vec::new();
    }
    let records = tokio::task::block_in_place(|| records(&world.kafka, &topic));
    let id = |payload: &[u8]| serde_json::from_slice::<Value>(payload).unwrap()["id"].as_i64().unwrap();
    // The last one of all may be late, too, where all were idle: it is no row of ours.
    records.iter().map(|record| id(record.payload().unwrap())).filter(|id| *id >= 0).collect()
}

/// The topics that the broker has.
pub async fn topics(world: &World) -> BTreeSet<String> {
    let mut config = Config::defaults();
    config.kafka.bootstrap_servers.clone_from(&world.kafka);
    Topics::new(&config.kafka).topics().await.unwrap().into_iter().map(|topic| topic.name).collect()
}
