//! Folds keys again from the log: reads a topic without a group, keeps the records of some keys, and folds each of them by
//! the engine's own rules, with what operators have decided and skipped, as far as a build has consumed the log.
//!
//! Bounded: keys are taken in shares, in the order of their bytes. When a share needs more memory than allowed, its upper
//! half is left for the next one, which reads the log again. One key's records are held in one piece.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::preflight;
use super::switch::Stands;
use crate::codec::Limits;
use crate::codec::frame;
use crate::codec::schemas::{Schemas, WriterSchema};
use crate::config::{Config, KafkaSettings, ViewRules};
use crate::domain::poison::{Poison, Reason};
use crate::domain::preflight::Outlook;
use crate::domain::record::{Record, RecordBatch};
use crate::domain::units::{NextOffset, Offset, Partition};
use crate::engine::decisions::{StoredDecision, Verdict};
use crate::engine::decode::{Decoder, Overrules};
use crate::engine::fold::{Fold, FoldLimits, ParkedLoad};
use crate::engine::plan::{KeyEntry, Plan};
use crate::engine::view::View;
use crate::platforms::kafka::bounded::{Positions, ReadError, TopicReader};
use crate::platforms::kafka::log::{LogReader, Watermarks};
use crate::schemas::SchemaSource;
use crate::schemas::source::Absent;
use crate::store::blocked::SkippedRange;
use crate::store::control::DecisionsByKey;
use crate::store::progress::BuildSource;
use crate::store::{Connection, DbError, blocked, refusals};

/// How long it is read before it is looked whether that is still wanted.
const SLICE: Duration = Duration::from_secs(1);
/// Bytes that a key costs beside its records.
const OF_KEY: usize = 256;
/// Bytes that a record costs beside its own, buffers that are larger than what they hold included.
const OF_RECORD: usize = 128;

/// Why the log does not tell.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct LogFault {
    /// A stable name.
    pub code: &'static str,
    /// What happened.
    pub detail: String,
    /// What to do.
    pub next_step: &'static str,
}

impl LogFault {
    fn unreadable(detail: String) -> Self {
        let next_step = "see that Kafka answers and that the topic can be read, then ask for it again";
        LogFault { code: "log_unreadable", detail, next_step }
    }
}

impl From<ReadError> for LogFault {
    fn from(error: ReadError) -> Self {
        LogFault::unreadable(match error {
            ReadError::Missing(topic) => format!("there is no topic {topic}"),
            ReadError::Forbidden { topic, source } => {
                format!("Kafka does not let us read topic {topic}: {source}; grant READ on it")
            }
            ReadError::Refused { topic, said } => {
                format!("topic {topic} cannot be read, Kafka does not let us in: {said}")
            }
            ReadError::Kafka { topic, source } => format!("topic {topic} cannot be read: {source}"),
        })
    }
}

/// Whether the log is the one that the build was made from. That it has lost its beginning is told key by key; what a
/// compacted topic has lost may be missing anywhere.
pub async fn check(config: &Config, source: BuildSource) -> Result<(), LogFault> {
    let seen = preflight::look(config, source).await.map_err(|error| LogFault::unreadable(format!("{error:#}")))?;
    match (&seen.outlook, seen.outlook.code()) {
        (_, None) | (Outlook::Truncated { is_compacted: false, .. }, _) => Ok(()),
        (outlook, Some(code)) => {
            Err(LogFault { code, detail: outlook.detail(), next_step: "go by the ledger instead: `from` = `ledger`" })
        }
    }
}

/// Which keys are read.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// These only; `None`: any.
    pub among: Option<BTreeSet<String>>,
    /// Those after this one, in the order of their bytes.
    pub after: String,
    /// Up to this one; `None`: to the last.
    pub up_to: Option<String>,
}

impl Wanted {
    /// One key.
    pub fn one(key: &str) -> Self {
        Wanted { among: Some(BTreeSet::from([key.to_owned()])), ..Wanted::default() }
    }

    fn covers(&self, key: &str) -> bool {
        key > self.after.as_str()
            && self.up_to.as_deref().is_none_or(|last| key <= last)
            && self.among.as_ref().is_none_or(|among| among.contains(key))
    }
}

/// Where and how much is read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Settings.
    pub kafka: KafkaSettings,
    /// The topic.
    pub topic: String,
    /// Bytes that a share of keys may take.
    pub memory: usize,
    /// Cancelled when nobody wants it any more.
    pub stop: CancellationToken,
    /// What operators have given up.
    pub skipped: Arc<BTreeMap<Partition, Vec<SkippedRange>>>,
}

/// The records of some keys, as far as the log was read.
#[derive(Debug, Default)]
pub struct Share {
    wanted: Wanted,
    records: BTreeMap<String, RecordBatch>,
    bytes: usize,
    reached: Positions,
    /// Where partitions begin that have lost their first records.
    begins: BTreeMap<Partition, Offset>,
}

impl Share {
    /// Reads the whole log, as it is now.
    pub async fn read(reading: &Reading, wanted: Wanted) -> Result<Share, LogFault> {
        Share { wanted, ..Share::default() }.read_to_end(reading).await
    }

    /// Reads on, to the present end, and forgets all keys but these.
    pub async fn read_on(mut self, reading: &Reading, keys: &[String]) -> Result<Share, LogFault> {
        self.wanted.among = Some(keys.iter().cloned().collect());
        let Share { wanted, records, .. } = &mut self;
        records.retain(|key, _| wanted.covers(key));
        // What is left has room, and what came since is little: nothing of it may be left out.
        self.read_to_end(&Reading { memory: usize::MAX, ..reading.clone() }).await
    }

    async fn read_to_end(mut self, reading: &Reading) -> Result<Share, LogFault> {
        let reading = reading.clone();
        let read = tokio::task::spawn_blocking(move || self.read_blocking(&reading).map(|()| self));
        read.await.unwrap_or_else(|error| Err(LogFault::unreadable(format!("the reader failed: {error}"))))
    }

    fn read_blocking(&mut self, reading: &Reading) -> Result<(), LogFault> {
        let ends = self.look_at_ends(reading)?;
        let reader = TopicReader::open_committed(&reading.kafka, &reading.topic)
            .map_err(|error| LogFault::unreadable(format!("topic {} cannot be read: {error}", reading.topic)))?;
        loop {
            let from = self.reached.clone();
            (self.reached, _) = reader.read_on(&from, SLICE, |record| self.take(record, reading))?;
            let is_read = |(partition, marks): &(Partition, Watermarks)| {
                self.reached.get(&partition.0).is_some_and(|reached| *reached >= marks.high.0)
            };
            if ends.iter().all(is_read) {
                // Retention may have gone on meanwhile.
                return self.look_at_ends(reading).map(drop);
            }
            if reading.stop.is_cancelled() {
                return Err(LogFault::unreadable("nobody waits for it any more".to_owned()));
            }
        }
    }

    fn look_at_ends(&mut self, reading: &Reading) -> Result<Vec<(Partition, Watermarks)>, LogFault> {
        let ends = LogReader::open(&reading.kafka, &reading.topic).and_then(|log| log.extents());
        let ends = ends.map_err(|error| LogFault::unreadable(error.at(&reading.kafka.bootstrap_servers)))?;
        if ends.is_empty() {
            return Err(LogFault::unreadable(format!("there is no topic {}", reading.topic)));
        }
        let begins = ends.iter().filter(|(_, marks)| marks.low > Offset(0));
        self.begins.extend(begins.map(|(partition, marks)| (*partition, marks.low)));
        Ok(ends)
    }

    fn take(&mut self, record: Record<'_>, reading: &Reading) {
        let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else { return };
        let skipped = reading.skipped.get(&record.partition);
        if !self.wanted.covers(key) || skipped.into_iter().flatten().any(|range| range.covers(record.offset)) {
            return;
        }
        let batch = match self.records.get_mut(key) {
            Some(batch) => batch,
            None => {
                self.bytes += OF_KEY + key.len();
                self.records.entry(key.to_owned()).or_default()
            }
        };
        batch.push(0, record, |out| out.extend_from_slice(record.headers.encoded()));
        self.bytes += OF_RECORD + record.weight();
        if self.bytes > reading.memory {
            self.halve();
        }
    }

    /// Leaves the upper half of the keys for another share.
    fn halve(&mut self) {
        let half = self.records.len() / 2;
        let Some(middle) = self.records.keys().nth(half).cloned().filter(|_| half > 0) else { return };
        drop(self.records.split_off(&middle));
        self.wanted.up_to = self.records.last_key_value().map(|(last, _)| last.clone());
        let of_key =
            |(key, batch): (&String, &RecordBatch)| OF_KEY + key.len() + OF_RECORD * batch.len() + batch.size();
        self.bytes = self.records.iter().map(of_key).sum();
    }

    /// The last key of the share, if there may be more behind it.
    pub fn last_key(&self) -> Option<&str> {
        self.wanted.up_to.as_deref()
    }

    /// Up to `limit` of its keys after `after`, each with how many records it has.
    pub fn keys_after(&self, after: &str, limit: usize) -> impl Iterator<Item = (&String, usize)> {
        let range = self.records.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        range.take(limit).map(|(key, batch)| (key, batch.len()))
    }

    /// Where partitions begin that have lost their first records.
    pub fn begins(&self) -> &BTreeMap<Partition, Offset> {
        &self.begins
    }

    /// Whether a build that stands there has consumed records that were not read.
    pub fn is_behind(&self, stands: &Stands) -> bool {
        let reached = |partition: &Partition| self.reached.get(&partition.0).copied().unwrap_or(0);
        stands.iter().any(|(partition, stand)| stand.next_offset > NextOffset(reached(partition)))
    }

    /// The records of a key, in the order in which each partition has them.
    pub fn records_of(&self, key: &str) -> impl Iterator<Item = Record<'_>> {
        self.records.get(key).into_iter().flat_map(|batch| batch.iter().map(|(_, record)| record))
    }

    /// Why a key may have more events than the log holds, if so: they stood before the beginning of a partition.
    pub fn lost_before(&self, key: &str) -> Option<String> {
        let own = self.records_of(key).find_map(|record| self.begins.get_key_value(&record.partition));
        let any = || self.begins.iter().next().filter(|_| self.records_of(key).next().is_none());
        let (partition, low) = own.or_else(any)?;
        Some(format!("partition {partition} of the log begins at offset {low}"))
    }
}

/// What operators have given up, by partition.
pub async fn skipped(
    client: &Connection,
    source: &BuildSource,
    stands: &Stands,
) -> Result<Arc<BTreeMap<Partition, Vec<SkippedRange>>>, DbError> {
    let mut skipped = BTreeMap::new();
    for partition in stands.keys() {
        skipped.insert(*partition, blocked::skipped(client, source, *partition).await?);
    }
    Ok(Arc::new(skipped))
}

/// Records of these keys that the build has refused for what stands outside of them: so they are refused here.
pub async fn overrules(client: &Connection, source: &BuildSource, keys: &[&str]) -> Result<Overrules, DbError> {
    let statement = include_str!("sql/refused_from_outside.sql");
    let rows = client.query(statement, &[&source.view, &source.build.0, &source.topic, &keys]).await?;
    let mut overrules = Overrules::default();
    for row in &rows {
        let (origin, poison) = refusals::refusal(row)?;
        overrules.refused.insert(origin, poison);
    }
    Ok(overrules)
}

/// Bounds of who folds without storing, by a build's rules.
pub fn limits(config: &Config, rules: &ViewRules) -> FoldLimits {
    FoldLimits {
        history: rules.history,
        record: Limits { max_record_bytes: config.projector.max_record_bytes, first_sequence: rules.first_sequence },
        max_parked_per_key: i32::MAX,
        parked_budget: i64::MAX,
    }
}

/// How the keys of a share are folded.
pub struct Folding<'f, V: View> {
    /// The view, by the build's rules.
    pub view: &'f V,
    /// Bounds of records; what is kept of them.
    pub limits: FoldLimits,
    /// The records.
    pub share: &'f Share,
    /// How far the build is: what stands behind that is not folded.
    pub stands: &'f Stands,
    /// What was decided about the keys.
    pub decisions: &'f DecisionsByKey,
    /// What the build has refused.
    pub overrules: &'f Overrules,
    /// The schemas of all framed records.
    pub schemas: &'f Schemas,
}

impl<'f, V: View> Folding<'f, V> {
    /// Folds one key: its entry, ledger and details, as the build would have them.
    pub fn fold(&self, key: &'f str) -> Plan<'f, V> {
        let Folding { view, limits, schemas, overrules, .. } = *self;
        let decoder = Decoder { view, limits: limits.record, overrules, schemas };
        let mut fold = Fold::new(decoder, limits);
        let last_sequence = limits.record.first_sequence.previous();
        let entry = KeyEntry { last_sequence, ..KeyEntry::default() };
        fold.add_key(key, Box::new(entry), (&[], ParkedLoad::All), decided(self.decisions, key));
        for record in consumed(self.share, self.stands, key) {
            fold.take(decoder.decode(record));
        }
        // What was decided last needs no record to be folded with.
        fold.heal(key, Partition(0));
        fold.finish()
    }
}

fn decided<'d>(decisions: &'d DecisionsByKey, key: &str) -> &'d [StoredDecision] {
    decisions.get(key).map(Vec::as_slice).unwrap_or_default()
}

/// The records of a key that a build which stands there has consumed.
fn consumed<'s>(share: &'s Share, stands: &'s Stands, key: &str) -> impl Iterator<Item = Record<'s>> {
    let is_consumed = |record: &Record<'_>| {
        stands.get(&record.partition).is_some_and(|stand| stand.next_offset.is_past(record.offset))
    };
    share.records_of(key).filter(is_consumed)
}

/// The schemas of what these keys are folded from.
pub async fn schemas_of(
    source: &SchemaSource,
    (share, stands, decisions): (&Share, &Stands, &DecisionsByKey),
    keys: &[&str],
) -> Result<Schemas, LogFault> {
    let mut schemas = Schemas::default();
    for key in keys {
        let substitutes = decided(decisions, key).iter().filter_map(|decision| match &decision.verdict {
            Verdict::Take(substitute) => Some(substitute.record(key)),
            Verdict::Skip => None,
        });
        let records: Vec<Record<'_>> = consumed(share, stands, key).chain(substitutes).collect();
        for record in records {
            let Ok(Some(frame)) = frame::of(&record) else { continue };
            if schemas.get(frame.schema).is_some() {
                continue;
            }
            let found = source.find(frame.schema, record.origin(), record.payload.unwrap_or_default()).await;
            schemas.insert(frame.schema, found.or_else(without)?);
        }
    }
    Ok(schemas)
}

/// What a record is whose schema cannot be had.
fn without(absent: Absent) -> Result<WriterSchema, LogFault> {
    match absent {
        Absent::Away(detail) => {
            let next_step = "see that the schema registry answers, then ask for it again";
            Err(LogFault { code: "schema_registry_unavailable", detail, next_step })
        }
        Absent::Unknown { detail, .. } => Ok(WriterSchema::Refused(Poison::new(Reason::SchemaNotFound, detail))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::Headers;

    fn reading(memory: usize, skipped: &[(i32, i64, i64)]) -> Reading {
        let range = |(_, from, to): &(i32, i64, i64)| SkippedRange { from: Offset(*from), to: NextOffset(*to) };
        let skipped = skipped.iter().map(|entry| (Partition(entry.0), vec![range(entry)])).collect();
        Reading {
            kafka: crate::config::Config::defaults().kafka,
            topic: "orders".to_owned(),
            memory,
            stop: CancellationToken::new(),
            skipped: Arc::new(skipped),
        }
    }

    fn record(key: &str, offset: i64) -> Record<'_> {
        Record {
            partition: Partition(0),
            offset: Offset(offset),
            timestamp_ms: None,
            key: Some(key.as_bytes()),
            payload: Some(b"{}"),
            headers: Headers::default(),
        }
    }

    /// What every share has, until the last one has come to the end.
    #[test]
    fn shares_follow_each_other_and_leave_no_key_out_however_small_the_memory() {
        let keys: Vec<String> = (0..100).map(|number| format!("o-{number:03}")).collect();
        for memory in [1, 3_000, 20_000, 1_000_000] {
            let reading = reading(memory, &[]);
            let (mut seen, mut after, mut shares) = (Vec::new(), String::new(), 0);
            loop {
                let wanted = Wanted { after, ..Wanted::default() };
                let mut share = Share { wanted, ..Share::default() };
                for (key, offset) in keys.iter().rev().chain(&keys).zip(0..) {
                    share.take(record(key, offset), &reading);
                }
                assert!(share.bytes <= memory || share.records.len() == 1, "{memory}");
                for (key, records) in share.keys_after("", usize::MAX) {
                    assert_eq!(records, 2, "{key}");
                    seen.push(key.clone());
                }
                shares += 1;
                match share.last_key() {
                    Some(last) => after = last.to_owned(),
                    None => break,
                }
            }
            assert_eq!(seen, keys, "{memory}");
            assert_eq!(shares == 1, memory == 1_000_000, "{memory}: {shares}");
        }
    }

    #[test]
    fn what_operators_gave_up_and_keys_that_nobody_asked_for_are_left_out() {
        let mut share = Share { wanted: Wanted::one("b"), ..Share::default() };
        for (key, offset) in [("a", 0), ("b", 1), ("b", 2), ("b", 3)] {
            share.take(record(key, offset), &reading(1_000_000, &[(0, 2, 3)]));
        }
        let offsets: Vec<i64> = share.records_of("b").map(|record| record.offset.0).collect();
        assert_eq!((share.records.len(), offsets), (1, vec![1, 3]));
    }
}
