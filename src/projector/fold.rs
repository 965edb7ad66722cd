//! Folds a batch of records into what has to be written. Pure: no I/O, no async, no clock.
//!
//! Here stands the heart of the promises: for every record exactly one of applied, duplicate, late, conflict, parked
//! or dead-lettered is counted, and each has its consequence in the same [`Plan`], which is committed whole.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::codec::{self, Head, Limits, Refused, json};
use crate::domain::decision::{Decision, Known, decide};
use crate::domain::poison::{Poison, Reason};
use crate::domain::record::{Headers, Record};
use crate::projector::event_ids::{EventIds, Fingerprint, LatestIds};
use crate::views::{Effect, LedgerRow, Origin, Parsed, View};

/// What is known of a key between batches.
#[derive(Debug, Default)]
pub struct KeyEntry<S> {
    /// Sequence of the last consumed event; `first_sequence - 1` before the first.
    pub last_sequence: i64,
    /// Its id.
    pub last_event_id: Option<Box<str>>,
    /// Ids of all its events.
    pub event_ids: EventIds,
    /// Whether the view has a row for it.
    pub stored: bool,
    /// Folding state of the view.
    pub state: S,
    /// Set while something ahead is missing.
    pub held: Option<Held>,
}

/// Why and for what a key waits. It waits for `last_sequence + 1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Lowest parked sequence, if any is parked.
    pub first_parked: Option<i64>,
    /// Events parked.
    pub parked_count: i32,
    /// Their bytes.
    pub parked_bytes: i64,
    /// Refused sequences ahead.
    pub refused: BTreeSet<i64>,
}

/// A parked event, as loaded from its table.
#[derive(Debug)]
pub struct StoredParked {
    /// Its sequence.
    pub sequence: i64,
    /// Its id.
    pub event_id: String,
    /// Where it was read.
    pub origin: Origin,
    /// Record timestamp.
    pub timestamp_ms: Option<i64>,
    /// Bytes of key and value.
    pub bytes: i64,
    /// Value and encoded headers; `None` when only its presence was asked for.
    pub body: Option<(Vec<u8>, Vec<u8>)>,
}

/// A parked event that a plan adds.
#[derive(Debug)]
pub struct NewParked<'a> {
    /// Key.
    pub key: &'a str,
    /// Sequence.
    pub sequence: i64,
    /// Event id.
    pub event_id: Cow<'a, str>,
    /// The record, whole.
    pub record: Record<'a>,
}

/// A dead letter that a plan adds.
#[derive(Debug)]
pub struct DeadLetter<'a> {
    /// Why.
    pub poison: Poison,
    /// The key, if it could be read.
    pub key: Option<&'a str>,
    /// The sequence, if it could be read.
    pub sequence: Option<i64>,
    /// The record, byte for byte.
    pub record: Record<'a>,
}

/// What became of the records of one partition. At every commit the sums obey
/// `consumed = applied + duplicate + late + conflict + parked + dead_lettered`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records read.
    pub consumed: i64,
    /// Events projected, or consumed as a no-op of unknown type.
    pub applied: i64,
    /// Events already applied.
    pub duplicate: i64,
    /// Events older than the view.
    pub late: i64,
    /// Events whose number or id is taken.
    pub conflict: i64,
    /// Change of the number of parked events (negative when they drain).
    pub parked: i64,
    /// Records refused.
    pub dead_lettered: i64,
}

/// Counts for metrics, over the whole batch.
#[derive(Debug, Default)]
pub struct Tally {
    /// Applied events by known type; `unknown` for the rest.
    pub by_type: HashMap<&'static str, u64>,
    /// Duplicates by sequence.
    pub duplicates_by_sequence: u64,
    /// Duplicates by event id.
    pub duplicates_by_event_id: u64,
    /// Late events.
    pub late: u64,
    /// Events that came ahead of a gap.
    pub gaps: u64,
    /// Oddities flagged.
    pub anomalies: u64,
    /// Dead letters by reason.
    pub dead_letters: HashMap<&'static str, u64>,
}

/// A key in work: its entry, what is parked behind it, and what the batch did to it.
#[derive(Debug)]
pub struct Work<'a, S> {
    /// The entry, changed in place.
    pub entry: KeyEntry<S>,
    /// Sequence of the stored row when the batch began; `None` if there was none.
    pub base_sequence: Option<i64>,
    /// The view's row has to be written.
    pub changed: bool,
    /// The held row has to be written or removed.
    pub held_changed: bool,
    /// Whether a held row was stored when the batch began.
    pub was_held: bool,
    /// More is parked than was loaded: drain again after this batch.
    pub unfinished: bool,
    parked: BTreeMap<i64, Parked<'a>>,
    /// Up to here all that is parked was loaded whole; `None` if that is everything.
    horizon: Option<i64>,
    /// Where the key's last record came from.
    pub partition: i32,
}

#[derive(Debug)]
struct Parked<'a> {
    event_id: Cow<'a, str>,
    record: Option<Record<'a>>,
    stored: bool,
    bytes: i64,
}

/// Everything that one batch changes.
#[derive(Debug)]
pub struct Plan<'a, V: View> {
    /// Keys touched.
    pub keys: BTreeMap<&'a str, Work<'a, V::State>>,
    /// New ledger rows.
    pub ledger: Vec<LedgerRow<'a>>,
    /// New rows of the view's further tables.
    pub details: Vec<V::Detail<'a>>,
    /// Parked events that have been drained and were stored.
    pub drained: Vec<(&'a str, i64)>,
    /// New dead letters.
    pub dead_letters: Vec<DeadLetter<'a>>,
    /// Counters per partition.
    pub counters: BTreeMap<i32, Counters>,
    /// For metrics.
    pub tally: Tally,
    /// Partitions that had to stop before a record, with its offset and why.
    pub blocked: BTreeMap<i32, (i64, String)>,
}

impl<'a, V: View> Plan<'a, V> {
    /// Events parked by this plan that stay parked, to be stored.
    pub fn new_parked(&self) -> impl Iterator<Item = NewParked<'_>> {
        self.keys.iter().flat_map(|(key, work)| {
            let fresh = work.parked.iter().filter(|(_, parked)| !parked.stored);
            fresh.filter_map(move |(sequence, parked)| {
                let record = parked.record?;
                Some(NewParked { key, sequence: *sequence, event_id: Cow::Borrowed(&parked.event_id), record })
            })
        })
    }
}

/// A record after decoding.
#[derive(Debug)]
pub struct Decoded<'a, V: View> {
    /// The record.
    pub record: Record<'a>,
    /// Its event, or why it is none.
    pub outcome: Result<Event<'a, V>, Refused<'a>>,
}

/// A decoded event.
#[derive(Debug)]
pub struct Event<'a, V: View> {
    /// Key.
    pub key: &'a str,
    /// Sequence.
    pub sequence: i64,
    /// As the view read it.
    pub parsed: Parsed<'a, V::Event<'a>>,
    /// Payload text.
    pub payload: &'a str,
}

/// What Postgres said of an earlier attempt: it overrules the rules.
#[derive(Debug, Default)]
pub struct Overrules {
    /// Records that Postgres cannot hold, by position.
    pub refused: HashMap<(i32, i64), Poison>,
    /// Event ids that are the latest of a key, with that key. Asked for only after the view's constraint was violated.
    pub owners: HashMap<String, String>,
}

/// Bounds of the fold.
#[derive(Debug, Clone, Copy)]
pub struct FoldLimits {
    /// Bounds of one record.
    pub record: Limits,
    /// Most events parked behind one key.
    pub max_parked_per_key: i32,
    /// How many more events may be parked in total.
    pub parked_budget: i64,
}

/// Decodes one record.
pub fn decode<'a, V: View>(view: &V, limits: Limits, overrules: &Overrules, record: Record<'a>) -> Decoded<'a, V> {
    Decoded { record, outcome: decode_event(view, limits, overrules, record) }
}

fn decode_event<'a, V: View>(
    view: &V,
    limits: Limits,
    overrules: &Overrules,
    record: Record<'a>,
) -> Result<Event<'a, V>, Refused<'a>> {
    let (head, payload) = codec::head(&record, limits)?;
    let refuse = |poison| Refused { poison, place: Some((head.key, head.sequence)), key: Some(head.key) };
    if !overrules.refused.is_empty()
        && let Some(poison) = overrules.refused.get(&(record.partition, record.offset))
    {
        return Err(refuse(poison.clone()));
    }
    let Head { key, sequence, .. } = head;
    let payload = json::check_storable(payload).map_err(refuse)?;
    let parsed = view.parse(&head, payload).map_err(refuse)?;
    Ok(Event { key, sequence, parsed, payload })
}

/// The fold in progress.
pub struct Fold<'a, V: View> {
    view: &'a V,
    limits: FoldLimits,
    overrules: &'a Overrules,
    latest_ids: LatestIds<'a>,
    plan: Plan<'a, V>,
}

impl<'a, V: View> Fold<'a, V> {
    /// Starts with the entries of every key that the batch touches.
    pub fn new(view: &'a V, limits: FoldLimits, overrules: &'a Overrules) -> Self {
        let plan = Plan {
            keys: BTreeMap::new(),
            ledger: Vec::new(),
            details: Vec::new(),
            drained: Vec::new(),
            dead_letters: Vec::new(),
            counters: BTreeMap::new(),
            tally: Tally::default(),
            blocked: BTreeMap::new(),
        };
        Fold { view, limits, overrules, latest_ids: LatestIds::default(), plan }
    }

    /// Brings in a key with what is known to be parked behind it: the lowest events with their bodies if they are
    /// `to_drain`, else the presence of those that the batch may meet.
    pub fn add_key(&mut self, key: &'a str, mut entry: KeyEntry<V::State>, parked: &'a [StoredParked], to_drain: bool) {
        let base_sequence = entry.stored.then_some(entry.last_sequence);
        let was_held = entry.held.is_some();
        let (mut held_changed, mut horizon) = (false, None);
        if to_drain && let Some(held) = entry.held.as_mut() {
            // A drain that was cut short left only a lower bound.
            let lowest = parked.iter().map(|row| row.sequence).min().or(held.first_parked);
            held_changed = std::mem::replace(&mut held.first_parked, lowest) != lowest;
            if (parked.len() as i64) < i64::from(held.parked_count) {
                horizon =
                    Some(parked.iter().filter(|row| row.body.is_some()).map(|row| row.sequence).max().unwrap_or(0));
            }
        }
        if let Some(latest) = entry.last_event_id.as_deref() {
            self.latest_ids.move_on(key, None, Fingerprint::of(latest));
        }
        let parked: BTreeMap<i64, Parked<'a>> = parked
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
            base_sequence,
            changed: false,
            held_changed,
            was_held,
            unfinished: false,
            parked,
            horizon,
            partition: 0,
        };
        self.plan.keys.insert(key, work);
    }

    /// Takes the next record, in offset order within its partition.
    pub fn take(&mut self, decoded: Decoded<'a, V>) {
        let partition = decoded.record.partition;
        if self.plan.blocked.contains_key(&partition) {
            return;
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
        let counters = self.plan.counters.entry(partition).or_default();
        counters.consumed += 1;
        *outcome.counter(counters) += 1;
    }

    /// Drains a key that is satisfied already (after a bounded drain, or when another process filled the gap).
    pub fn heal(&mut self, key: &'a str, partition: i32) {
        if let Some(work) = self.plan.keys.get_mut(key) {
            work.partition = partition;
        }
        self.drain(key, partition);
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
        let work = self.work(key);
        work.partition = record.partition;
        if work.parked.contains_key(&(work.entry.last_sequence + 1)) {
            self.drain(key, record.partition);
        }
        let id = Fingerprint::of(&event.parsed.event_id);
        let work = self.work(key);
        let decision = work.decide(sequence, &event.parsed.event_id, id);
        let is_next = matches!(decision, Decision::Apply | Decision::Duplicate { by_event_id: true });
        let taken_by = match work.parked.get(&sequence) {
            Some(parked) if is_next => Some(parked.event_id.clone().into_owned()),
            _ if decision == Decision::Conflict => work.entry.last_event_id.as_deref().map(str::to_owned),
            _ => None,
        };
        match (decision, taken_by) {
            (Decision::Gap, _) => self.park(event, record),
            (Decision::Late, _) => {
                self.plan.tally.late += 1;
                Outcome::Late
            }
            (Decision::Duplicate { by_event_id: false }, _) => {
                self.plan.tally.duplicates_by_sequence += 1;
                Outcome::Duplicate
            }
            (_, Some(parked)) if is_next && parked == event.parsed.event_id => {
                self.consume_twin(event, id, record, decision)
            }
            (_, Some(taken_by)) => {
                self.conflict(&event, record, &taken_by);
                Outcome::Conflict
            }
            (next, None) => {
                let outcome = self.consume(event, id, record, next);
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
        let outcome = self.consume(event, id, record, decision);
        *outcome.counter(self.plan.counters.entry(record.partition).or_default()) += 1;
        self.plan.tally.duplicates_by_sequence += 1;
        if matches!(outcome, Outcome::Applied | Outcome::Duplicate) {
            self.drain(key, record.partition);
        }
        Outcome::Duplicate
    }

    /// The event is next in sequence: project it, or advance over it.
    fn consume(&mut self, event: Event<'a, V>, id: Fingerprint, record: Record<'a>, decision: Decision) -> Outcome {
        let Event { key, sequence, parsed, payload } = event;
        if let Some(owner) = self.other_owner(key, &parsed.event_id, id) {
            let detail = format!("event id `{}` is the latest of `{owner}`", parsed.event_id);
            self.dead_letter(record, Poison::new(Reason::EventIdReused, detail), Some((key, sequence)));
            return Outcome::Conflict;
        }
        let view = self.view;
        let plan = &mut self.plan;
        let work = plan.keys.get_mut(key).expect("every key of the batch is added before the fold");
        let state = &mut work.entry.state;
        let known_type = V::EVENT_TYPES.iter().find(|known| **known == parsed.event_type).copied();
        let (effect, outcome) = match (decision, parsed.event) {
            (Decision::Apply, Some(projected)) => {
                match view.project(key, state, projected, parsed.occurred_at, &mut plan.details) {
                    Ok(oddities) => plan.tally.anomalies += oddities,
                    Err(poison) => {
                        self.dead_letter(record, poison, Some((key, sequence)));
                        return Outcome::DeadLettered;
                    }
                }
                *plan.tally.by_type.entry(known_type.unwrap_or("unknown")).or_default() += 1;
                (Effect::Applied, Outcome::Applied)
            }
            (Decision::Apply, None) => {
                view.skip(state, parsed.occurred_at);
                *plan.tally.by_type.entry("unknown").or_default() += 1;
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
        work.entry.event_ids.insert(id);
        work.changed = true;
        plan.ledger.push(LedgerRow {
            key,
            sequence,
            event_id: parsed.event_id,
            event_type: parsed.event_type,
            occurred_at: parsed.occurred_at,
            origin: Origin { partition: record.partition, offset: record.offset },
            effect,
            payload,
        });
        outcome
    }

    /// The other key whose latest event has this id. Keys of the batch are known as of now; of keys outside it Postgres
    /// tells when the batch ends with an id twice (an id that the batch only passes through is not looked for there).
    fn other_owner(&self, key: &str, event_id: &str, id: Fingerprint) -> Option<&'a str> {
        if V::EVENT_ID_CONSTRAINT.is_none() {
            return None;
        }
        let outside =
            || self.overrules.owners.get(event_id).filter(|owner| !self.plan.keys.contains_key(owner.as_str()));
        self.latest_ids.owner(id).or_else(|| outside().map(String::as_str)).filter(|owner| *owner != key)
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
                work.entry.last_sequence + 1
            );
            return Outcome::Blocked(why);
        }
        if self.limits.parked_budget <= 0 {
            let why = "park bound reached: no more events can be parked (projector.max_parked_total)".to_owned();
            work.forget_empty_hold();
            return Outcome::Blocked(why);
        }
        self.limits.parked_budget -= 1;
        held.parked_count += 1;
        held.parked_bytes += record.size() as i64;
        held.first_parked = Some(held.first_parked.map_or(sequence, |first| first.min(sequence)));
        work.held_changed = true;
        let bytes = record.size() as i64;
        let parked = Parked { event_id: event.parsed.event_id, record: Some(record), stored: false, bytes };
        work.parked.insert(sequence, parked);
        self.plan.tally.gaps += 1;
        Outcome::Parked
    }

    /// Consumes parked events as long as the next one is there. They count on `partition`, whose batch this is.
    fn drain(&mut self, key: &'a str, partition: i32) {
        loop {
            let work = self.work(key);
            let next = work.entry.last_sequence + 1;
            let Some(record) = work.parked.get(&next).and_then(|parked| parked.record) else { return };
            self.unpark(key, next, partition);
            let outcome = self.take_parked(record);
            *outcome.counter(self.plan.counters.entry(partition).or_default()) += 1;
            if !matches!(outcome, Outcome::Applied | Outcome::Duplicate) {
                return;
            }
        }
    }

    /// Takes one event out of the parked ones.
    fn unpark(&mut self, key: &'a str, sequence: i64, partition: i32) {
        let work = self.work(key);
        let Some(parked) = work.parked.remove(&sequence) else { return };
        work.count_out(sequence, parked.bytes);
        if parked.stored {
            self.plan.drained.push((key, sequence));
        }
        self.plan.counters.entry(partition).or_default().parked -= 1;
    }

    fn take_parked(&mut self, record: Record<'a>) -> Outcome {
        match decode(self.view, self.limits.record, self.overrules, record).outcome {
            Ok(event) => {
                let id = Fingerprint::of(&event.parsed.event_id);
                let decision = self.work(event.key).decide(event.sequence, &event.parsed.event_id, id);
                self.consume(event, id, record, decision)
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
        let (key, sequence) = (Some(event.key), Some(event.sequence));
        self.plan.dead_letters.push(DeadLetter { poison, key, sequence, record });
    }

    fn refuse(&mut self, record: Record<'a>, refused: Refused<'a>) {
        match refused.place {
            Some(place) => self.dead_letter(record, refused.poison, Some(place)),
            None => {
                *self.plan.tally.dead_letters.entry(refused.poison.reason.as_str()).or_default() += 1;
                let letter = DeadLetter { poison: refused.poison, key: refused.key, sequence: None, record };
                self.plan.dead_letters.push(letter);
            }
        }
    }

    /// Refuses a record; its key cannot pass that sequence until it is repaired.
    fn dead_letter(&mut self, record: Record<'a>, poison: Poison, place: Option<(&'a str, i64)>) {
        *self.plan.tally.dead_letters.entry(poison.reason.as_str()).or_default() += 1;
        if let Some((key, sequence)) = place {
            let work = self.work(key);
            work.partition = record.partition;
            // A parked event may hold that very number: then it is the good copy, and nothing is missing there.
            if sequence > work.entry.last_sequence && !work.parked.contains_key(&sequence) {
                work.entry.held.get_or_insert_default().refused.insert(sequence);
                work.held_changed = true;
            }
        }
        let (key, sequence) = (place.map(|place| place.0), place.map(|place| place.1));
        self.plan.dead_letters.push(DeadLetter { poison, key, sequence, record });
    }
}

impl<S> Work<'_, S> {
    fn decide(&self, sequence: i64, event_id: &str, id: Fingerprint) -> Decision {
        let known = Known {
            last_sequence: self.entry.last_sequence,
            last_event_id: self.entry.last_event_id.as_deref(),
            event_id_in_ledger: sequence == self.entry.last_sequence + 1 && self.entry.event_ids.contains(id),
        };
        decide(known, sequence, event_id)
    }

    fn count_out(&mut self, sequence: i64, bytes: i64) {
        // Beyond the horizon anything may be parked: the next number is the safe guess.
        let next =
            self.parked.keys().next().copied().filter(|next| self.horizon.is_none_or(|horizon| *next <= horizon));
        if let Some(held) = self.entry.held.as_mut() {
            held.parked_count -= 1;
            held.parked_bytes -= bytes;
            held.first_parked = if held.parked_count > 0 { Some(next.unwrap_or(sequence + 1)) } else { None };
            self.held_changed = true;
        }
    }

    fn forget_empty_hold(&mut self) {
        if self.entry.held.as_ref().is_some_and(|held| held.parked_count == 0 && held.refused.is_empty()) {
            self.entry.held = None;
        }
    }

    /// After the batch: what is behind us is no longer missing; a key that waits for nothing is not held.
    fn settle(&mut self) {
        let last = self.entry.last_sequence;
        let mut unfinished = false;
        if let Some(held) = self.entry.held.as_mut() {
            let before = held.refused.len();
            held.refused.retain(|sequence| *sequence > last);
            self.held_changed |= held.refused.len() != before || self.changed;
            // A lower bound that was passed: what is parked lies further on, perhaps right here.
            held.first_parked = held.first_parked.map(|first| first.max(last + 1));
            unfinished = held.first_parked == Some(last + 1);
        }
        self.unfinished = unfinished;
        self.forget_empty_hold();
    }
}

/// Which of the six a record became.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Applied,
    Duplicate,
    Late,
    Conflict,
    Parked,
    DeadLettered,
    Blocked(String),
}

impl Outcome {
    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        match self {
            Outcome::Applied => &mut counters.applied,
            Outcome::Duplicate => &mut counters.duplicate,
            Outcome::Late => &mut counters.late,
            Outcome::Conflict => &mut counters.conflict,
            Outcome::Parked => &mut counters.parked,
            Outcome::DeadLettered | Outcome::Blocked(_) => &mut counters.dead_lettered,
        }
    }
}

/// The keys that a batch touches.
pub fn keys_of<'a, V: View>(batch: &[Decoded<'a, V>]) -> HashSet<&'a str> {
    batch
        .iter()
        .filter_map(|decoded| match &decoded.outcome {
            Ok(event) => Some(event.key),
            Err(refused) => refused.place.map(|(key, _)| key),
        })
        .collect()
}

#[cfg(test)]
mod tests;
