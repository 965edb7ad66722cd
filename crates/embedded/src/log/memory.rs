//! Kafka in memory, for tests: topics, groups, transactions, also open ones, fencing, and commits that fail.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Batch, Delivery, Log, LogError, ORIGIN, Outgoing, Place, Position, Reader, Writer};

/// Of a group, by topic and partition: offset and note.
type Positions = HashMap<(String, i32), (i64, String)>;

/// Brokers in memory. Clones are the same brokers.
#[derive(Clone, Default)]
pub struct Memory {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Stored>,
    groups: BTreeMap<String, Positions>,
    /// How often a writer of each name was opened.
    epochs: HashMap<String, u64>,
    /// What the next commits do: `None` succeeds.
    failures: Vec<Option<Failure>>,
    made: u64,
    has_no_transactions: bool,
    keeps_ends: bool,
}

#[derive(Default)]
struct Stored {
    id: String,
    partitions: Vec<Vec<Written>>,
    /// First offset of each partition.
    low: HashMap<i32, i64>,
    /// By partition, how many records are before a transaction that nobody has ended.
    open: HashMap<i32, usize>,
}

impl Stored {
    fn written(&self, partition: i32) -> &[Written] {
        self.partitions.get(usize::try_from(partition).unwrap_or_default()).map_or(&[], Vec::as_slice)
    }

    /// Those that can be read: none from an open transaction on.
    fn readable(&self, partition: i32) -> &[Written] {
        let written = self.written(partition);
        &written[..self.open.get(&partition).map_or(written.len(), |before| written.len().min(*before))]
    }
}

/// A record in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing is written.
    Before,
    /// All is written, and nobody says so.
    After,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a topic, anew if it is there.
    pub fn topic(&self, name: &str, partitions: usize) {
        let mut state = self.lock();
        state.made += 1;
        let id = format!("id-{}", state.made);
        let topic = Stored { id, partitions: vec![Vec::new(); partitions], low: HashMap::new(), open: HashMap::new() };
        state.topics.insert(name.to_owned(), topic);
        self.shared.1.notify_all();
    }

    /// From now on they have none.
    pub fn without_transactions(&self) {
        self.lock().has_no_transactions = true;
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) {
        self.lock().topics.remove(name);
        self.shared.1.notify_all();
    }

    /// Appends a JSON value.
    pub fn publish(&self, topic: &str, partition: usize, timestamp_ms: i64, value: &str) {
        let record = Written { timestamp_ms, key: None, value: Some(value.as_bytes().to_vec()), headers: Vec::new() };
        if let Some(topic) = self.lock().topics.get_mut(topic) {
            topic.partitions[partition].push(record);
        }
        self.shared.1.notify_all();
    }

    /// Appends a record with a key, in its first partition; without a value it is a tombstone.
    pub fn put(&self, topic: &str, key: &str, value: Option<&str>) {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let record = Written { timestamp_ms: 0, key: Some(bytes(key)), value: value.map(bytes), headers: Vec::new() };
        if let Some(topic) = self.lock().topics.get_mut(topic) {
            topic.partitions[0].push(record);
        }
        self.shared.1.notify_all();
    }

    /// What is appended to a partition from now on is of a transaction that is not ended yet.
    pub fn open_transaction(&self, topic: &str, partition: i32) {
        if let Some(topic) = self.lock().topics.get_mut(topic) {
            let before = topic.written(partition).len();
            topic.open.insert(partition, before);
        }
    }

    /// Commits it.
    pub fn commit_transaction(&self, topic: &str, partition: i32) {
        if let Some(topic) = self.lock().topics.get_mut(topic) {
            topic.open.remove(&partition);
        }
        self.shared.1.notify_all();
    }

    /// Whether anybody says where partitions end.
    pub fn tell_ends(&self, are_told: bool) {
        self.lock().keeps_ends = !are_told;
    }

    /// Takes away what is below an offset.
    pub fn delete_below(&self, topic: &str, partition: i32, low: i64) {
        if let Some(topic) = self.lock().topics.get_mut(topic) {
            topic.low.insert(partition, low);
        }
    }

    /// What a topic holds, all partitions one after the other.
    pub fn values(&self, topic: &str) -> Vec<String> {
        let text = |record: &Written| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        self.records(topic).iter().map(text).collect()
    }

    /// Likewise, whole.
    pub fn records(&self, topic: &str) -> Vec<Written> {
        let state = self.lock();
        state.topics.get(topic).map(|topic| topic.partitions.concat()).unwrap_or_default()
    }

    /// Lets the next commits fail or succeed, in this order.
    pub fn fail(&self, failures: impl IntoIterator<Item = Option<Failure>>) {
        self.lock().failures = failures.into_iter().collect();
    }

    /// The offset and notes of a partition in a group.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<(i64, String)> {
        self.lock().groups.get(group)?.get(&(topic.to_owned(), partition)).cloned()
    }
}

impl Log for Memory {
    fn delivery(&self) -> Delivery {
        match self.lock().has_no_transactions {
            true => Delivery::AtLeastOnce,
            false => Delivery::ExactlyOnce,
        }
    }

    fn reader(&self, topics: &[String]) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(MemoryReader { log: self.clone(), topics: topics.to_vec(), at: BTreeMap::new() }))
    }

    fn writer(&self, name: &str, group: &str, topics: &[String]) -> Result<Box<dyn Writer>, LogError> {
        let mut state = self.lock();
        let epoch = state.epochs.entry(name.to_owned()).or_default();
        *epoch += 1;
        let (epoch, name, group) = (*epoch, name.to_owned(), group.to_owned());
        Ok(Box::new(MemoryWriter { log: self.clone(), name, group, topics: topics.to_vec(), epoch }))
    }

    fn fence(&self, name: &str) -> Result<(), LogError> {
        self.writer(name, "", &[]).map(drop)
    }

    fn make_topic(&self, name: &str) -> Result<(), LogError> {
        if !self.lock().topics.contains_key(name) {
            self.topic(name, 1);
        }
        Ok(())
    }

    fn groups(&self, prefix: &str) -> Result<Vec<String>, LogError> {
        Ok(self.lock().groups.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    fn delete_groups(&self, groups: &[String]) -> Result<(), LogError> {
        self.lock().groups.retain(|name, _| !groups.contains(name));
        Ok(())
    }
}

struct MemoryReader {
    log: Memory,
    topics: Vec<String>,
    /// What is read next, and whether the end there was told.
    at: BTreeMap<Place, (i64, bool)>,
}

impl MemoryReader {
    fn each<T>(&self, of: impl Fn(&Stored) -> T) -> Result<Vec<T>, LogError> {
        let state = self.log.lock();
        let find = |name: &String| state.topics.get(name).ok_or_else(|| gone(name));
        self.topics.iter().map(|name| find(name).map(&of)).collect()
    }

    /// Whether there was something.
    fn take(&mut self, state: &State, into: &mut Batch) -> Result<bool, LogError> {
        for (place, (next, is_told)) in &mut self.at {
            let name = &self.topics[place.topic];
            let topic = state.topics.get(name).ok_or_else(|| gone(name))?;
            for record in topic.readable(place.partition).iter().skip(usize::try_from(*next).unwrap_or_default()) {
                if into.is_full() {
                    return Ok(true);
                }
                let headers = record.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref()));
                let parts = (record.key.as_deref(), record.value.as_deref());
                into.push((*place, *next), Some(record.timestamp_ms), parts, headers);
                (*next, *is_told) = (*next + 1, false);
            }
            if !*is_told {
                into.ends.push((*place, *next));
                *is_told = true;
            }
        }
        Ok(!into.is_empty() || !into.ends.is_empty())
    }
}

impl Reader for MemoryReader {
    fn partitions(&mut self) -> Result<Vec<Vec<i32>>, LogError> {
        self.each(|topic| (0..).take(topic.partitions.len()).collect())
    }

    fn bounds(&mut self, place: Place) -> Result<(i64, i64), LogError> {
        let bounds = self.each(|topic| {
            let low = topic.low.get(&place.partition).copied().unwrap_or_default();
            (low, i64::try_from(topic.readable(place.partition).len()).unwrap_or_default())
        })?;
        Ok(bounds[place.topic])
    }

    fn end(&mut self, place: Place) -> Result<i64, LogError> {
        if self.log.lock().keeps_ends {
            return Err(LogError::Again("nobody answers".to_owned()));
        }
        let ends = self.each(|topic| i64::try_from(topic.written(place.partition).len()).unwrap_or_default())?;
        Ok(ends[place.topic])
    }

    fn ids(&mut self) -> Result<Vec<Option<String>>, LogError> {
        self.each(|topic| Some(topic.id.clone()))
    }

    fn assign(&mut self, from: &[(Place, i64)]) -> Result<(), LogError> {
        self.at.extend(from.iter().map(|(place, offset)| (*place, (*offset, false))));
        Ok(())
    }

    fn next(&mut self, into: &mut Batch, wait: Duration) -> Result<(), LogError> {
        into.clear();
        let until = Instant::now() + wait;
        let log = self.log.clone();
        let mut state = log.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.take(&state, into)? || left.is_zero() {
                return Ok(());
            }
            state = log.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn gone(topic: &str) -> LogError {
    LogError::Halt(format!("topic {topic} is not there"))
}

struct MemoryWriter {
    log: Memory,
    name: String,
    group: String,
    topics: Vec<String>,
    epoch: u64,
}

impl Writer for MemoryWriter {
    fn positions(&mut self, places: &[Place]) -> Result<Vec<Position>, LogError> {
        let state = self.log.lock();
        let Some(group) = state.groups.get(&self.group) else { return Ok(Vec::new()) };
        let position = |place: &Place| {
            let (offset, metadata) = group.get(&(self.topics[place.topic].clone(), place.partition))?.clone();
            Some(Position { place: *place, offset, metadata })
        };
        Ok(places.iter().filter_map(position).collect())
    }

    fn commit(&mut self, records: &[Outgoing], positions: &[Position]) -> Result<(), LogError> {
        let mut state = self.log.lock();
        if state.epochs.get(&self.name) != Some(&self.epoch) {
            return Err(LogError::Fenced);
        }
        let failure = if state.failures.is_empty() { None } else { state.failures.remove(0) };
        if failure == Some(Failure::Before) {
            return Err(LogError::Again("the commit was aborted".to_owned()));
        }
        for record in records {
            let topic = state.topics.get_mut(&*record.topic).ok_or_else(|| gone(&record.topic))?;
            let origin = record.origin.iter().map(|origin| (ORIGIN.to_owned(), Some(origin.clone().into_bytes())));
            topic.partitions[0].push(Written {
                timestamp_ms: 0,
                key: record.key.clone(),
                value: record.value.clone(),
                headers: record.headers.iter().cloned().chain(origin).collect(),
            });
        }
        let group = state.groups.entry(self.group.clone()).or_default();
        for position in positions {
            let key = (self.topics[position.place.topic].clone(), position.place.partition);
            group.insert(key, (position.offset, position.metadata.clone()));
        }
        self.log.shared.1.notify_all();
        match failure {
            Some(Failure::After) => Err(LogError::Again("nobody says what came of the commit".to_owned())),
            _ => Ok(()),
        }
    }
}
