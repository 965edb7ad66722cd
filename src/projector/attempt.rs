//! One attempt at a batch: decode, load, fold, commit, remember. Either all of it happens or none.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use crate::codec::schemas::Schemas;
use crate::codec::{self, Frame};
use crate::crash;
use crate::domain::record::Record;
use crate::failure::Failure;
use crate::projector::commit::{LoadedParked, Loading, reload};
use crate::projector::decode::{Decoded, Decoder, keys_of};
use crate::projector::fold::{Fold, ParkedLoad};
use crate::projector::lane::{Job, Lane};
use crate::projector::plan::{ByKey, Counters, KeyEntry, Plan, Work};
use crate::store::progress::{Advance, Anchor};
use crate::store::sqlstate::classify;
use crate::views::View;

/// What an attempt leaves to do.
#[derive(Debug, Default)]
pub struct Done {
    /// Keys with more to drain.
    pub unfinished: Vec<(String, i32)>,
    /// Partitions that stopped before a record: partition, offset, why.
    pub blocked: Vec<(i32, i64, String)>,
}

impl<V: View> Lane<V> {
    /// Tries the job's next part.
    pub async fn attempt(&mut self, job: &Job<'_>) -> Result<Done, Failure> {
        self.ensure_session().await?;
        let view = Arc::clone(&self.view);
        let schemas = self.schemas_of(job).await?;
        #[allow(clippy::needless_late_init)]
        let (parked, decisions, known_schemas); // outlive the batch, whose events may be drained from them
        let limits = self.context.fold_limits();
        let decoder = Decoder { view: &*view, limits: limits.record, overrules: &job.overrules, schemas: &schemas };
        // Grown step by step it would be copied more often than it is read.
        let mut batch: Vec<Decoded<'_, V>> = Vec::with_capacity(job.end - job.start);
        batch.extend(self.ours(job).map(|(_, record)| decoder.decode(record)));
        crash::point("batch.decoded");

        let heal: Vec<(&str, i32)> = job
            .heal
            .iter()
            .filter(|(_, partition)| self.owned.contains_key(partition))
            .map(|(key, partition)| (key.as_str(), *partition))
            .collect();
        let mut keys = keys_of(&batch);
        let to_heal: HashSet<&str> = heal.iter().map(|(key, _)| *key).collect();
        keys.extend(&to_heal);
        let mut entries: ByKey<'_, Box<KeyEntry<V::State>>> = ByKey::default();
        entries.reserve(keys.len());
        let mut missing = Vec::new();
        for key in keys {
            let cached = self.cache.take(key, &self.owned);
            // A key to heal is one that somebody else may have moved: it is loaded afresh.
            match cached.filter(|_| self.is_bulk() || !to_heal.contains(key)) {
                Some(entry) => drop(entries.insert(key, entry)),
                None => missing.push(key),
            }
        }
        let session = self.session.as_mut().ok_or_else(no_session)?;
        if !heal.is_empty() {
            // Perhaps because something was decided just now.
            session.forget_decisions();
        }
        session.look_for_decisions(V::NAME).await?;
        let loading = Loading { context: &self.context, session };
        decisions = reload(&loading, &missing, &mut entries).await?;
        let LoadedParked { to_drain, drain_limit, rows } =
            loading.parked(&batch, &heal, &entries, &decisions, job.drain_limit).await?;
        parked = rows;
        known_schemas = self.context.schemas.with_stored(&schemas, &parked, &decisions).await?;
        crash::point("batch.loaded");

        let mut fold = Fold::new(Decoder { schemas: &known_schemas, ..decoder }, limits);
        fold.reserve(entries.len(), batch.len());
        for (key, entry) in entries {
            let rows = parked.get(key).map(Vec::as_slice).unwrap_or_default();
            let loaded = ParkedLoad::of(to_drain.contains(key), rows.len(), drain_limit);
            let decided = decisions.get(key).map(Vec::as_slice).unwrap_or_default();
            fold.add_key(key, entry, (rows, loaded), decided);
        }
        for decoded in batch {
            fold.take(decoded);
        }
        for (key, partition) in &heal {
            fold.heal(key, *partition);
        }
        let plan = fold.finish();

        let advances = self.advances(job, &plan);
        if advances.is_empty() {
            return Ok(if self.is_bulk() { self.remember(plan, &advances, 0.0) } else { Done::default() });
        }
        crash::point("batch.folded");
        let started = Instant::now();
        let session = self.session.as_mut().ok_or_else(no_session)?;
        session.commit(&self.context, &plan, &advances).await.map_err(|failure| with_event_ids(failure, &plan))?;
        crash::point("commit.done");
        let seconds = started.elapsed().as_secs_f64();
        Ok(self.remember(plan, &advances, seconds))
    }

    /// The job's records that are ours, not applied yet and not given up, with their place in the attempt.
    fn ours<'b>(&self, job: &'b Job<'_>) -> impl Iterator<Item = (usize, Record<'b>)> {
        let skipped = self.context.skipped();
        let is_skipped = move |partition: i32, offset: i64| {
            skipped.get(&partition).is_some_and(|ranges| ranges.iter().any(|(from, to)| (*from..*to).contains(&offset)))
        };
        let part = job.batch.iter().skip(job.start).take(job.end - job.start).enumerate();
        // A client that fetches anew may bring a record twice: offsets only grow.
        let mut expected: BTreeMap<i32, i64> = BTreeMap::new();
        part.filter_map(move |(index, (generation, record))| {
            let owned = self.owned.get(&record.partition).filter(|owned| owned.generation == generation)?;
            let next = expected.entry(record.partition).or_insert(owned.next_offset);
            let is_new = record.offset >= *next;
            *next = (*next).max(record.offset + 1);
            (is_new && !is_skipped(record.partition, record.offset)).then_some((index, record))
        })
    }

    /// The schemas that the framed records of an attempt were written with. Nothing is asked where none is framed.
    async fn schemas_of(&self, job: &Job<'_>) -> Result<Schemas, Failure> {
        let mut schemas = Schemas::default();
        let is_framed = |(_, record): (u64, Record<'_>)| record.payload.and_then(codec::frame).is_some();
        if !job.batch.iter().skip(job.start).take(job.end - job.start).any(is_framed) {
            return Ok(schemas);
        }
        for (index, record) in self.ours(job) {
            let Some(Frame { schema_id, .. }) = record.payload.and_then(codec::frame) else { continue };
            if schemas.get(schema_id).is_some() {
                continue;
            }
            match self.context.schemas.find(schema_id, record.partition, record.offset).await {
                Ok(schema) => schemas.insert(schema_id, schema),
                // What stands before it needs nothing of it.
                Err(_) if index > 0 => return Err(Failure::FirstOnly(index)),
                Err(failure) => return Err(failure),
            }
        }
        Ok(schemas)
    }

    /// How far each partition moves.
    fn advances(&self, job: &Job<'_>, plan: &Plan<'_, V>) -> Vec<Advance> {
        let mut advances: BTreeMap<i32, Advance> = BTreeMap::new();
        // A key can move without a record: what it waited for was consumed elsewhere, or decided.
        let is_written = |work: &&Work<'_, V::State>| {
            work.held_changed || work.decided || work.was_held != work.entry.held.is_some()
        };
        let released: HashSet<i32> = plan.keys.values().filter(is_written).filter_map(|work| work.partition).collect();
        // The last record taken of each partition becomes its anchor.
        let mut last: BTreeMap<i32, Record<'_>> = BTreeMap::new();
        for (_, record) in self.ours(job) {
            let stop = plan.blocked.get(&record.partition).map_or(i64::MAX, |(offset, _)| *offset);
            if record.offset < stop {
                last.insert(record.partition, record);
            }
        }
        for (partition, owned) in &self.owned {
            let counters = plan.counters.get(partition).copied().unwrap_or_default();
            let taken = last.get(partition);
            if taken.is_none() && counters == Counters::default() && !released.contains(partition) {
                continue;
            }
            let mut advance = owned.stand(*partition);
            advance.counters = counters;
            if let Some(record) = taken {
                advance.next_offset = record.offset + 1;
                advance.anchor =
                    Some(Anchor { offset: record.offset, crc: record.checksum(), timestamp_ms: record.timestamp_ms });
            }
            advances.insert(*partition, advance);
        }
        // Past control records and aborted transactions, which only the end of the partition tells of.
        if job.end == job.batch.len() {
            for end in job.batch.ends() {
                let Some(owned) = self.owned.get(&end.partition).filter(|owned| owned.generation == end.generation)
                else {
                    continue;
                };
                let reached = advances.get(&end.partition).map_or(owned.next_offset, |advance| advance.next_offset);
                if end.offset > reached && !plan.blocked.contains_key(&end.partition) {
                    advances.entry(end.partition).or_insert_with(|| owned.stand(end.partition)).next_offset =
                        end.offset;
                }
            }
        }
        advances.into_values().collect()
    }

    /// After the commit: memory, status, metrics, and the report to the group.
    fn remember(&mut self, plan: Plan<'_, V>, advances: &[Advance], seconds: f64) -> Done {
        self.report(&plan, advances, seconds);
        let mut unfinished = Vec::new();
        for (key, work) in plan.keys {
            let Some(partition) = work.partition else { continue };
            if work.unfinished {
                unfinished.push((key.to_owned(), partition));
            }
            // Keys with decisions ahead are loaded with them each time.
            let is_kept = work.decisions.is_empty() || self.is_bulk();
            if let Some(owned) = self.owned.get(&partition).filter(|_| is_kept) {
                let mut entry = work.entry;
                entry.stored = work.base_sequence.is_some() || work.changed;
                self.cache.put(key, entry, partition, owned.generation);
            }
        }
        self.tell_bytes();
        let now = Timestamp::now();
        for advance in advances {
            if let Some(owned) = self.owned.get_mut(&advance.partition) {
                owned.next_offset = advance.next_offset;
                owned.commits = advance.commit;
            }
            self.context.status.update_partition(advance.partition, |owned| {
                owned.next_offset = advance.next_offset;
                owned.paused = None;
                owned.last_commit_at = Some(now);
            });
        }
        self.context.status.committed();
        self.acknowledge(advances.iter().map(|advance| (advance.partition, advance.next_offset)).collect());
        let blocked = plan.blocked.into_iter().map(|(partition, (offset, why))| (partition, offset, why)).collect();
        Done { unfinished, blocked }
    }

    fn report(&self, plan: &Plan<'_, V>, advances: &[Advance], seconds: f64) {
        let metrics = &self.context.metrics;
        let tally = &plan.tally;
        let sums = advances
            .iter()
            .fold((0, 0), |sums, advance| (sums.0 + advance.counters.consumed, sums.1 + advance.counters.parked));
        let (consumed, parked) = sums;
        self.context.parked_total.fetch_add(parked, std::sync::atomic::Ordering::Relaxed);
        metrics.consumed.with_label_values(&[V::NAME]).inc_by(consumed.try_into().unwrap_or(0));
        for (event_type, count) in &tally.by_type {
            metrics.events.with_label_values(&[V::NAME, event_type]).inc_by(*count);
            if *event_type == "unknown" {
                metrics.unknown_events.with_label_values(&[V::NAME]).inc_by(*count);
            }
        }
        let counts = [
            (&metrics.duplicates, "sequence", tally.duplicates_by_sequence),
            (&metrics.duplicates, "event_id", tally.duplicates_by_event_id),
            (&metrics.out_of_order, "late", tally.late),
            (&metrics.out_of_order, "gap", tally.gaps),
        ];
        for (counter, reason, count) in counts.into_iter().filter(|(_, _, count)| *count > 0) {
            counter.with_label_values(&[V::NAME, reason]).inc_by(count);
        }
        for (reason, count) in &tally.dead_letters {
            metrics.dead_letters.with_label_values(&[V::NAME, reason]).inc_by(*count);
        }
        for (action, count) in &tally.decisions {
            metrics.decisions_taken.with_label_values(&[V::NAME, action]).inc_by(*count);
        }
        for settled in &plan.settled {
            if let Some(reason) = &settled.refused {
                tracing::warn!(view = V::NAME, decision = settled.id, reason, "decision cannot be folded with");
            }
        }
        metrics.anomalies.with_label_values(&[V::NAME]).inc_by(tally.anomalies);
        metrics.upserts_duration.with_label_values(&[V::NAME]).observe(seconds);
        metrics.batch_records.with_label_values(&[V::NAME]).observe(consumed as f64);
        metrics.cache_bytes.with_label_values(&[V::NAME]).set(self.cache.bytes() as i64);
        let now_ms = Timestamp::now().as_millisecond();
        for timestamp_ms in advances.iter().filter_map(|advance| advance.anchor?.timestamp_ms) {
            let age = (now_ms - timestamp_ms).max(0) as f64 / 1000.0;
            metrics.event_age.with_label_values(&[V::NAME]).observe(age);
        }
        if !plan.dead_letters.is_empty() {
            self.context.new_dead_letters.notify_one();
            for letter in &plan.dead_letters {
                tracing::warn!(
                    view = V::NAME,
                    reason = letter.poison.reason.as_str(),
                    error = letter.poison.detail,
                    orderId = letter.key,
                    sequence = letter.sequence,
                    partition = letter.record.partition,
                    offset = letter.record.offset,
                    "record refused"
                );
            }
        }
    }

    /// Asks whose latest events these are; `false` if that tells nothing new.
    pub async fn find_owners(&mut self, event_ids: &[String], job: &mut Job<'_>) -> Result<bool, Failure> {
        self.ensure_session().await?;
        let session = self.session.as_ref().ok_or_else(no_session)?;
        let ids: Vec<&str> = event_ids.iter().map(String::as_str).collect();
        let owners =
            V::owners_of(&session.statements, &session.client, &ids).await.map_err(|error| classify(error, None))?;
        let before = job.overrules.owners.len();
        job.overrules.owners.extend(owners);
        Ok(job.overrules.owners.len() > before)
    }
}

/// Adds what the plan wrote to the refusal of an event id.
fn with_event_ids<V: View>(failure: Failure, plan: &Plan<'_, V>) -> Failure {
    match failure {
        Failure::ReusedEventId { detail, .. } => {
            let event_ids = plan.ledger.iter().map(|row| row.event_id.as_ref().to_owned()).collect();
            Failure::ReusedEventId { detail, event_ids }
        }
        other => other,
    }
}

/// A session is needed and there is none.
pub fn no_session() -> Failure {
    Failure::Retry("the connection was lost".to_owned())
}
