//! Folds a batch of records into what has to be written. Pure: no I/O, no async, no clock.
//!
//! Here stands the heart of the promises: for every record exactly one of applied, duplicate, late, conflict, parked
//! or dead-lettered is counted, and each has its consequence in the same [`Plan`], which is committed whole.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::codec::{Limits, Refused};
use crate::domain::decision::Decision;
use crate::domain::history::History;
use crate::domain::ledger::{Effect, LedgerRow};
use crate::domain::poison::{Poison, Reason};
use crate::domain::record::{Headers, Record};
use crate::domain::units::{Partition, Sequence};
use crate::engine::decisions::StoredDecision;
use crate::engine::decode::{Decoded, Decoder, Event};
use crate::engine::event_ids::{Fingerprint, LatestIds};
use crate::engine::plan::{ByKey, DeadLetter, Held, KeyEntry, Parked, Plan, StoredParked, Tally, Work};
use crate::engine::view::View;
use outcome::{Outcome, refused_as};

/// What was loaded of the events parked behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParkedLoad {
    /// Only which of the batch's own sequences are parked.
    Presence,
    /// The lowest ones whole; there may be more.
    Lowest,
    /// All of them, whole.
    All,
}

impl ParkedLoad {
    /// What `rows` loaded with this `limit` are.
    pub fn of(to_drain: bool, rows: usize, limit: usize) -> ParkedLoad {
        match to_drain {
            false => ParkedLoad::Presence,
            true if rows < limit => ParkedLoad::All,
            true => ParkedLoad::Lowest,
        }
    }
}

/// Most refused numbers remembered per key, the lowest ones: those beyond show as a gap when their turn comes.
const MAX_REFUSED: usize = 1_000;

/// Bounds of the fold.
#[derive(Debug, Clone, Copy)]
pub struct FoldLimits {
    /// Bounds of one record.
    pub record: Limits,
    /// What is kept of each event.
    pub history: History,
    /// Most events parked behind one key.
    pub max_parked_per_key: i32,
    /// How many more events may be parked in total.
    pub parked_budget: i64,
}

/// The fold in progress.
pub struct Fold<'a, V: View> {
    decoder: Decoder<'a, V>,
    limits: FoldLimits,
    latest_ids: LatestIds<'a>,
    plan: Plan<'a, V>,
}

impl<'a, V: View> Fold<'a, V> {
    /// Starts; the entries of every key that the batch touches are added next.
    pub fn new(decoder: Decoder<'a, V>, limits: FoldLimits) -> Self {
        let by_type = vec![0; decoder.view.spec().event_types.len() + 1];
        let plan = Plan {
            keys: ByKey::default(),
            ledger: Vec::new(),
            details: Vec::new(),
            drained: Vec::new(),
            dead_letters: Vec::new(),
            strangers: Vec::new(),
            counters: BTreeMap::new(),
            tally: Tally { by_type, ..Tally::default() },
            blocked: BTreeMap::new(),
            settled: Vec::new(),
        };
        Fold { decoder, limits, latest_ids: LatestIds::default(), plan }
    }

    /// What records are decoded with before they are taken.
    pub fn decoder(&self) -> Decoder<'a, V> {
        self.decoder
    }

    /// Makes room for so many keys and records. Grown step by step it would be copied more often than it is read.
    pub fn reserve(&mut self, keys: usize, records: usize) {
        self.plan.keys.reserve(keys);
        self.plan.ledger.reserve(records);
    }

    /// Brings in a key with what is known to be parked behind it: the lowest events with their bodies if they are
    /// `to_drain`, else the presence of those that the batch may meet; and with what was decided about its numbers.
    pub fn add_key(
        &mut self,
        key: &'a str,
        mut entry: Box<KeyEntry<V::State>>,
        (parked, loaded): (&'a [StoredParked], ParkedLoad),
        decisions: &'a [StoredDecision],
    ) {
        let base_sequence = entry.stored.then_some(entry.last_sequence);
        let was_held = entry.held.is_some();
        let (mut held_changed, mut horizon) = (false, None);
        if entry.held.is_none() && loaded != ParkedLoad::Presence && !parked.is_empty() {
            // Another lane released the key while this one, or one before it, parked these. Beyond them there may be more.
            let more = i32::from(loaded == ParkedLoad::Lowest);
            let parked_count = i32::try_from(parked.len()).unwrap_or(i32::MAX).saturating_add(more);
            entry.held = Some(Held { parked_count, ..Held::default() });
            held_changed = true;
        }
        if let Some(held) = entry.held.as_mut().filter(|_| loaded != ParkedLoad::Presence) {
            let before = (held.first_parked, held.parked_count);
            let lowest = parked.iter().map(|row| row.sequence).min();
            if loaded == ParkedLoad::All {
                // A lane that did not know what another one parked may have stored its own counts.
                held.first_parked = lowest;
                held.parked_count = i32::try_from(parked.len()).unwrap_or(i32::MAX);
                held.parked_bytes = parked.iter().map(|row| row.bytes).sum();
            } else {
                // A drain that was cut short left only a lower bound.
                held.first_parked = lowest.or(held.first_parked);
                let whole = parked.iter().filter(|row| row.body.is_some());
                // Where nothing was loaded whole, every number lies beyond.
                horizon = Some(whole.map(|row| row.sequence).max().unwrap_or(Sequence(i64::MIN)));
            }
            held_changed |= before != (held.first_parked, held.parked_count);
        }
        if let Some(latest) = entry.last_event_id.as_deref() {
            self.latest_ids.move_on(key, None, Fingerprint::of(latest));
        }
        let parked: BTreeMap<Sequence, Parked<'a>> = parked
            .iter()
            .map(|row| {
                let record = row.body.as_ref().map(|(payload, headers)| Record {
                    partition: row.origin.partition,
                    offset: row.origin.offset,
                    timestamp_ms: row.timestamp_ms,
                    key: Some(key.as_bytes()),
                    payload: Some(payload),
                    headers: Headers::from_encoded(headers),
                });
                (
                    row.sequence,
                    Parked { event_id: Cow::Borrowed(&*row.event_id), record, stored: true, bytes: row.bytes },
                )
            })
            .collect();
        let work = Work {
            entry,
            decisions: decisions.iter().collect(),
            decided: false,
            base_sequence,
            changed: false,
            held_changed,
            was_held,
            unfinished: false,
            parked,
            horizon,
            partition: None,
        };
        self.plan.keys.insert(key, work);
    }

    /// Takes the next record, in offset order within its partition.
    pub fn take(&mut self, decoded: Decoded<'a, V>) {
        let partition = decoded.record.partition;
        if self.plan.blocked.contains_key(&partition) {
            return;
        }
        let place = match &decoded.outcome {
            Ok(event) => Some(event.key),
            Err(refused) => refused.place.map(|(key, _)| key),
        };
        if let Some(key) = place
            && self.work(key).has_next()
        {
            self.drain(key, partition);
        }
        let outcome = match decoded.outcome {
            Ok(event) => self.take_event(event, decoded.record),
            Err(refused) => {
                self.refuse(decoded.record, refused);
                Outcome::DeadLettered
            }
        };
        if let Outcome::Blocked(why) = outcome {
            self.plan.blocked.insert(partition, (decoded.record.offset, why));
            return;
        }
        if let Some(key) = place {
            self.work(key).partition = Some(partition);
        }
        let counters = self.plan.counters.entry(partition).or_default();
        counters.consumed += 1;
        *outcome.counter(counters) += 1;
    }

    /// Drains a key that is satisfied already (after a bounded drain, or when another process filled the gap).
    pub fn heal(&mut self, key: &'a str, partition: Partition) {
        if let Some(work) = self.plan.keys.get_mut(key) {
            work.partition = Some(partition);
        }
        self.drain(key, partition);
        self.pass_over_decisions(key);
    }

    /// The plan.
    pub fn finish(mut self) -> Plan<'a, V> {
        for work in self.plan.keys.values_mut() {
            work.settle();
        }
        self.plan
    }

    fn work(&mut self, key: &'a str) -> &mut Work<'a, V::State> {
        self.plan.keys.get_mut(key).expect("every key of the batch is added before the fold")
    }

    fn take_event(&mut self, event: Event<'a, V>, record: Record<'a>) -> Outcome {
        let (key, sequence) = (event.key, event.sequence);
        let history = self.limits.history;
        let work = self.work(key);
        let id = Fingerprint::of(&event.parsed.event_id);
        let decision = work.decide(sequence, (&event.parsed.event_id, id), history);
        let taken_by = match decision {
            Decision::Apply | Decision::Duplicate { by_event_id: true } => {
                work.parked.get(&sequence).map(|parked| parked.event_id.clone().into_owned())
            }
            Decision::Conflict => work.entry.last_event_id.as_deref().map(str::to_owned),
            _ => None,
        };
        match (decision, taken_by) {
            (Decision::Gap, _) => self.park(event, record),
            (Decision::Late, _) => {
                self.plan.tally.late += 1;
                Outcome::Late
            }
            (Decision::Stranger, _) => self.meet_stranger(event, record, record.partition),
            (Decision::Duplicate { by_event_id: false }, _) => {
                self.plan.tally.duplicates_by_sequence += 1;
                Outcome::Duplicate
            }
            // A conflict is with another event, so these are a parked copy and its number's turn.
            (_, Some(taken_by)) if taken_by == event.parsed.event_id => self.consume_twin(event, id, record, decision),
            (_, Some(taken_by)) => {
                self.conflict(&event, record, &taken_by);
                Outcome::Conflict
            }
            (next, None) => {
                let outcome = self.consume_or_refuse(event, id, record, next);
                if matches!(outcome, Outcome::Applied | Outcome::Duplicate) {
                    self.drain(key, record.partition);
                }
                outcome
            }
        }
    }

    /// The event is next, and a copy of it is parked that was not loaded whole (a drain was cut short): this one
    /// takes the copy's place, and counts as the duplicate that it is.
    fn consume_twin(
        &mut self,
        event: Event<'a, V>,
        id: Fingerprint,
        record: Record<'a>,
        decision: Decision,
    ) -> Outcome {
        let (key, sequence) = (event.key, event.sequence);
        self.unpark(key, sequence, record.partition);
        let outcome = self.consume_or_refuse(event, id, record, decision);
        *outcome.counter(self.plan.counters.entry(record.partition).or_default()) += 1;
        self.plan.tally.duplicates_by_sequence += 1;
        if matches!(outcome, Outcome::Applied | Outcome::Duplicate) {
            self.drain(key, record.partition);
        }
        Outcome::Duplicate
    }

    fn consume_or_refuse(
        &mut self,
        event: Event<'a, V>,
        id: Fingerprint,
        record: Record<'a>,
        decision: Decision,
    ) -> Outcome {
        let place = (event.key, event.sequence);
        self.consume(event, id, record, decision, Effect::Applied)
            .unwrap_or_else(|unfit| self.refuse_next(record, unfit, place))
    }

    /// The event is next in sequence: project it, or advance over it. `applied` is what the ledger calls the former. An
    /// error comes with the event's id.
    fn consume(
        &mut self,
        event: Event<'a, V>,
        id: Fingerprint,
        record: Record<'a>,
        decision: Decision,
        applied: Effect,
    ) -> Result<Outcome, (Poison, Cow<'a, str>)> {
        let Event { key, sequence, parsed, payload } = event;
        if let Some(detail) = self.why_reused(key, &parsed.event_id, id) {
            return Err((Poison::new(Reason::EventIdReused, detail), parsed.event_id));
        }
        let view = self.decoder.view;
        let plan = &mut self.plan;
        let work = plan.keys.get_mut(key).expect("every key of the batch is added before the fold");
        let state = &mut work.entry.state;
        let types = &view.spec().event_types;
        let place = types.iter().position(|known| *known == parsed.event_type).unwrap_or(types.len());
        let (effect, outcome) = match (decision, parsed.event) {
            (Decision::Apply, Some(projected)) => {
                match view.project(key, state, projected, parsed.occurred_at, &mut plan.details) {
                    Ok(odd) => plan.tally.anomalies += odd,
                    Err(poison) => return Err((poison, parsed.event_id)),
                }
                plan.tally.by_type[place] += 1;
                (applied, Outcome::Applied)
            }
            (Decision::Apply, None) => {
                view.skip(state, parsed.occurred_at);
                plan.tally.by_type[types.len()] += 1;
                (Effect::UnknownType, Outcome::Applied)
            }
            _ => {
                view.skip(state, parsed.occurred_at);
                plan.tally.duplicates_by_event_id += 1;
                (Effect::Duplicate, Outcome::Duplicate)
            }
        };
        self.latest_ids.move_on(key, work.entry.last_event_id.as_deref(), id);
        work.entry.last_sequence = sequence;
        work.entry.last_event_id = Some((&*parsed.event_id).into());
        work.entry.remember(id, self.limits.history);
        work.changed = true;
        plan.ledger.push(LedgerRow {
            key,
            sequence,
            event_id: parsed.event_id,
            event_type: parsed.event_type,
            occurred_at: parsed.occurred_at,
            origin: record.origin(),
            effect,
            payload: (self.limits.history == History::Payload).then_some(payload),
        });
        Ok(outcome)
    }

    /// The other key whose latest event has this id. Keys of the batch are known as of now; of keys outside it Postgres
    /// tells when the batch ends with an id twice (an id that the batch only passes through is not looked for there).
    fn other_holder(&self, key: &str, event_id: &str, id: Fingerprint) -> Option<&'a str> {
        self.decoder.view.spec().event_id_constraint.as_ref()?;
        let holders = &self.decoder.overrules.holders;
        let outside = || holders.get(event_id).filter(|holder| !self.plan.keys.contains_key(holder.as_str()));
        self.latest_ids.holder(id).or_else(|| outside().map(String::as_str)).filter(|holder| *holder != key)
    }

    fn park(&mut self, event: Event<'a, V>, record: Record<'a>) -> Outcome {
        let limits = self.limits;
        let (key, sequence) = (event.key, event.sequence);
        let work = self.plan.keys.get_mut(key).expect("every key of the batch is added before the fold");
        if let Some(parked) = work.parked.get(&sequence) {
            if parked.event_id == event.parsed.event_id {
                self.plan.tally.duplicates_by_sequence += 1;
                return Outcome::Duplicate;
            }
            let taken_by = parked.event_id.clone().into_owned();
            self.conflict(&event, record, &taken_by);
            return Outcome::Conflict;
        }
        let held = work.entry.held.get_or_insert_default();
        if held.parked_count >= limits.max_parked_per_key {
            let why = format!(
                "park bound reached: {} events of `{key}` wait for sequence {} (projector.max_parked_per_key)",
                held.parked_count,
                work.entry.last_sequence.next()
            );
            return Outcome::Blocked(why);
        }
        if self.limits.parked_budget <= 0 {
            let why = "park bound reached: no more events can be parked (projector.max_parked_total)".to_owned();
            work.forget_empty_hold();
            return Outcome::Blocked(why);
        }
        let bytes = record.weight() as i64;
        self.limits.parked_budget -= 1;
        held.parked_count += 1;
        held.parked_bytes += bytes;
        held.first_parked = Some(held.first_parked.map_or(sequence, |first| first.min(sequence)));
        work.held_changed = true;
        let parked = Parked { event_id: event.parsed.event_id, record: Some(record), stored: false, bytes };
        work.parked.insert(sequence, parked);
        self.plan.tally.gaps += 1;
        Outcome::Parked
    }

    /// Consumes decided and parked events as long as the next one is there. They count on `partition`, whose batch this is.
    ///
    /// What is not ahead any more goes too: a copy on another partition was parked while the original was consumed.
    fn drain(&mut self, key: &'a str, partition: Partition) {
        while self.work(key).has_next() {
            // What is drained came from anywhere: it is this partition that moves with it.
            self.work(key).partition = Some(partition);
            match self.take_decision(key) {
                Some(true) => continue,
                Some(false) => return,
                None => {}
            }
            let work = self.work(key);
            let next = work.entry.last_sequence.next();
            let first = work.parked.first_key_value().filter(|(sequence, _)| **sequence <= next);
            let Some((sequence, record)) = first.and_then(|(sequence, parked)| Some((*sequence, parked.record?)))
            else {
                return;
            };
            self.unpark(key, sequence, partition);
            let outcome = self.take_parked(record, partition);
            *outcome.counter(self.plan.counters.entry(partition).or_default()) += 1;
            if sequence == next && !matches!(outcome, Outcome::Applied | Outcome::Duplicate) {
                return;
            }
        }
    }

    /// Takes one event out of the parked ones.
    fn unpark(&mut self, key: &'a str, sequence: Sequence, partition: Partition) {
        let work = self.work(key);
        let Some(parked) = work.parked.remove(&sequence) else { return };
        work.count_out(sequence, parked.bytes);
        if parked.stored {
            self.plan.drained.push((key, sequence));
        }
        self.plan.counters.entry(partition).or_default().parked -= 1;
    }

    /// Takes what was parked; `partition` is where it counts now.
    fn take_parked(&mut self, record: Record<'a>, partition: Partition) -> Outcome {
        match self.decoder.decode(record).outcome {
            Ok(event) => {
                let id = Fingerprint::of(&event.parsed.event_id);
                let history = self.limits.history;
                let work = self.work(event.key);
                match work.decide(event.sequence, (&event.parsed.event_id, id), history) {
                    Decision::Late => {
                        self.plan.tally.late += 1;
                        Outcome::Late
                    }
                    Decision::Stranger => self.meet_stranger(event, record, partition),
                    Decision::Duplicate { by_event_id: false } => {
                        self.plan.tally.duplicates_by_sequence += 1;
                        Outcome::Duplicate
                    }
                    Decision::Conflict => {
                        let taken_by = work.entry.last_event_id.as_deref().unwrap_or_default().to_owned();
                        self.conflict(&event, record, &taken_by);
                        Outcome::Conflict
                    }
                    next => self.consume_or_refuse(event, id, record, next),
                }
            }
            Err(refused) => {
                self.refuse(record, refused);
                Outcome::DeadLettered
            }
        }
    }

    fn conflict(&mut self, event: &Event<'a, V>, record: Record<'a>, taken_by: &str) {
        let detail = format!(
            "sequence {} of `{}` is taken by event `{taken_by}`; this is event `{}`",
            event.sequence, event.key, event.parsed.event_id
        );
        let poison = Poison::new(Reason::SequenceConflict, detail);
        *self.plan.tally.dead_letters.entry(poison.reason.as_str()).or_default() += 1;
        let (key, sequence, event_id) = (Some(event.key), Some(event.sequence), Some(event.parsed.event_id.clone()));
        self.plan.dead_letters.push(DeadLetter { poison, key, sequence, event_id, record });
    }

    fn refuse(&mut self, record: Record<'a>, refused: Refused<'a>) {
        match refused.place {
            Some(place) => self.dead_letter(record, refused.poison, place, None),
            None => {
                *self.plan.tally.dead_letters.entry(refused.poison.reason.as_str()).or_default() += 1;
                let (poison, key) = (refused.poison, refused.key);
                self.plan.dead_letters.push(DeadLetter { poison, key, sequence: None, event_id: None, record });
            }
        }
    }

    /// Refuses a record; its key cannot pass that sequence until it is repaired.
    fn dead_letter(
        &mut self,
        record: Record<'a>,
        poison: Poison,
        (key, sequence): (&'a str, Sequence),
        event_id: Option<Cow<'a, str>>,
    ) {
        *self.plan.tally.dead_letters.entry(poison.reason.as_str()).or_default() += 1;
        let work = self.work(key);
        // A parked event may hold that very number: then it is the good copy, and nothing is missing there.
        if sequence > work.entry.last_sequence && !work.parked.contains_key(&sequence) {
            let refused = &mut work.entry.held.get_or_insert_default().refused;
            if refused.len() < MAX_REFUSED || Some(&sequence) < refused.last() {
                work.held_changed |= refused.insert(sequence);
            }
            if refused.len() > MAX_REFUSED {
                refused.pop_last();
            }
        }
        let (key, sequence) = (Some(key), Some(sequence));
        self.plan.dead_letters.push(DeadLetter { poison, key, sequence, event_id, record });
    }
}

mod decided;
mod outcome;
mod strangers;
#[cfg(test)]
mod tests;
