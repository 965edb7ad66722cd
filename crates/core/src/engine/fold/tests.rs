//! The projection converges: whatever arrives in whatever order, split into whatever batches, with crashes in between,
//! the stored state is the in-order fold of the first good event of each number.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::codec::schemas::Schemas;
use crate::domain::history::History;
use crate::domain::ledger::Origin;
use crate::domain::units::{Micros, Offset, Partition, Sequence};
use crate::engine::decisions::{Substitute, Verdict};
use crate::engine::decode::{Headed, Overrules, keys_of};
use crate::engine::event_ids::EventIds;
use crate::engine::plan::{ParkedSummary, Stranger};
use basket::{Basket, State};

mod basket;
mod refold;
mod rules;
use crate::domain::counters::Counters;

const LIMITS: FoldLimits = FoldLimits {
    history: History::Payload,
    record: Limits { max_record_bytes: 10_000, first_sequence: Sequence(1) },
    max_parked_per_key: 1_000,
    parked_budget: 1_000_000,
};
const ORDERS: usize = 3;
const LAST: i64 = 6;
/// What an operator puts at this number cannot be read.
const UNUSABLE: i64 = 5;

type TestResult = Result<(), TestCaseError>;

/// What a delivery carries under its order and sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// The event that belongs there.
    Good,
    /// Another event with the same number.
    Rival,
    /// The event that belongs to the number before, under this number.
    Renumbered,
    /// An event of a type nobody knows.
    Unknown,
    /// Not an event.
    Broken,
}

#[derive(Debug, Clone, Copy)]
struct Delivery {
    order: usize,
    sequence: i64,
    content: Content,
}

#[derive(Debug, Clone)]
struct Sent {
    key: String,
    payload: String,
    headers: Vec<u8>,
    delivery: Delivery,
}

fn event_id(delivery: Delivery) -> String {
    let Delivery { order, sequence, content } = delivery;
    match content {
        Content::Rival => format!("rival-{order}-{sequence}"),
        Content::Unknown => format!("unknown-{order}-{sequence}"),
        Content::Renumbered => format!("good-{order}-{}", sequence - 1),
        _ => format!("good-{order}-{sequence}"),
    }
}

fn send(delivery: Delivery) -> Sent {
    let Delivery { order, sequence, content } = delivery;
    let key = format!("o-{order}");
    let common = format!(r#""eventId":"{}","occurredAt":{sequence}"#, event_id(delivery));
    let payload = match content {
        Content::Broken => "{".to_owned(),
        Content::Unknown => format!(r#"{{"type":"Wrapped",{common}}}"#),
        _ if sequence % 2 == 0 => format!(r#"{{"type":"Put",{common},"quantity":{sequence}}}"#),
        _ => format!(r#"{{"type":"Noted",{common},"note":"s{sequence}"}}"#),
    };
    let mut headers = Vec::new();
    Headers::push(&mut headers, b"x-sequence", Some(sequence.to_string().as_bytes()));
    Sent { key, payload, headers, delivery }
}

impl Sent {
    fn record(&self, offset: i64) -> Record<'_> {
        Record {
            partition: Partition(self.delivery.order as i32 % 2),
            offset: Offset(offset),
            timestamp_ms: None,
            key: Some(self.key.as_bytes()),
            payload: Some(self.payload.as_bytes()),
            headers: Headers::from_encoded(&self.headers),
        }
    }
}

/// What survives a crash.
#[derive(Debug, Default, Clone)]
struct Stored {
    keys: HashMap<String, StoredKey>,
    ledger: Vec<(String, Sequence, String, &'static str)>,
    /// The ledger's rows whole, and what the keys were whenever something was committed.
    history: refold::History,
    lines: Vec<(String, i64, i64)>,
    dead_letters: HashMap<Origin, Letter>,
    counters: Counters,
    /// Belongs to the view: a build that starts anew has it from the start.
    decisions: HashMap<String, Vec<StoredDecision>>,
    decided: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Letter {
    reason: Reason,
    key: Option<String>,
    sequence: Option<Sequence>,
    event_id: Option<String>,
    payload: Option<Vec<u8>>,
}

#[derive(Debug, Default, Clone)]
struct StoredKey {
    last_sequence: Sequence,
    last_event_id: Option<Box<str>>,
    event_ids: Vec<String>,
    stored: bool,
    state: State,
    held: Option<Held>,
    parked: BTreeMap<Sequence, (String, Origin, Vec<u8>, Vec<u8>)>,
}

impl Stored {
    fn entry(&self, key: &str) -> KeyEntry<State> {
        let Some(stored) = self.keys.get(key) else { return KeyEntry::default() };
        KeyEntry {
            last_sequence: stored.last_sequence,
            last_event_id: stored.last_event_id.clone(),
            event_ids: EventIds::of(&stored.event_ids),
            stored: stored.stored,
            state: stored.state.clone(),
            held: stored.held.clone(),
        }
    }

    fn summary(&self, key: &str) -> Option<ParkedSummary> {
        let parked = &self.keys.get(key)?.parked;
        let (lowest, _) = parked.first_key_value()?;
        Some(ParkedSummary { lowest: *lowest, count: parked.len() as i64 })
    }

    fn is_decided(&self, key: &str) -> bool {
        let next = self.entry(key).last_sequence.next();
        self.decisions.get(key).into_iter().flatten().any(|decision| decision.covers(next))
    }

    /// Decides as an operator may: about numbers that are missing, not parked and not decided yet.
    fn decide(&mut self, wish: Wish) {
        let Wish { order, ahead, length, replace, .. } = wish;
        let key = format!("o-{order}");
        let kept = self.keys.get(&key).cloned().unwrap_or_default();
        let held = kept.held.unwrap_or_default();
        let reach =
            [Some(kept.last_sequence.next()), held.first_parked.map(Sequence::previous), held.refused.last().copied()];
        let reach = reach.into_iter().flatten().max().unwrap().0;
        let mine = self.decisions.entry(key.clone()).or_default();
        let free = |number: i64| {
            number <= reach
                && !kept.parked.contains_key(&Sequence(number))
                && !mine.iter().any(|decision| decision.covers(Sequence(number)))
        };
        let sequence = kept.last_sequence.0 + ahead;
        if !free(sequence) {
            return;
        }
        let sequence_to =
            if replace { sequence } else { (sequence..sequence + length).take_while(|n| free(*n)).last().unwrap() };
        let verdict = if replace { Verdict::Take(Box::new(substitute(order, sequence))) } else { Verdict::Skip };
        self.decided += 1;
        let id = self.decided;
        let (sequence, sequence_to) = (Sequence(sequence), Sequence(sequence_to));
        let (reason, decided_at, is_awaited) = ("r".to_owned(), Micros(7), true);
        mine.push(StoredDecision { id, sequence, sequence_to, verdict, reason, decided_at, is_awaited });
        mine.sort_by_key(|decision| decision.sequence);
    }

    /// As `Loading::parked` does: the lowest `whole` events with their bodies, of the rest only those `met`.
    fn parked(&self, key: &str, whole: usize, met: &HashSet<Sequence>) -> Vec<StoredParked> {
        let rows = self.keys.get(key).map(|stored| &stored.parked);
        rows.into_iter()
            .flatten()
            .enumerate()
            .filter(|(index, (sequence, _))| *index < whole || met.contains(sequence))
            .map(|(index, (sequence, (event_id, origin, payload, headers)))| StoredParked {
                sequence: *sequence,
                event_id: event_id.clone(),
                origin: *origin,
                timestamp_ms: None,
                bytes: (key.len() + payload.len() + headers.len()) as i64,
                body: (index < whole).then(|| (payload.clone(), headers.clone())),
            })
            .collect()
    }

    /// One attempt, as the keyed applier makes it; `commit` false is a crash before the commit. Gives keys left to heal.
    fn attempt(&mut self, batch: &[(i64, &Sent)], heal: &[String], drain_limit: usize, commit: bool) -> Vec<String> {
        let view = Basket::new();
        let (overrules, schemas) = (Overrules::default(), Schemas::default());
        let decoder = Decoder { view: &view, limits: LIMITS.record, overrules: &overrules, schemas: &schemas };
        let heads: Vec<Headed<'_>> = batch.iter().map(|(offset, sent)| decoder.head(&sent.record(*offset))).collect();
        let mut keys = keys_of(&heads);
        keys.extend(heal.iter().map(String::as_str));
        let places = || heads.iter().filter_map(Headed::place);
        let to_drain: HashSet<&str> = places()
            .filter(|(key, sequence)| *sequence == self.entry(key).last_sequence.next())
            .map(|(key, _)| key)
            .chain(heal.iter().map(String::as_str).filter(|key| self.entry(key).is_in_need(self.summary(key))))
            .chain(keys.iter().copied().filter(|key| self.is_decided(key)))
            .collect();
        let met = |key: &str| -> HashSet<Sequence> {
            places().filter(|(other, _)| *other == key).map(|(_, sequence)| sequence).collect()
        };
        let whole = |key: &str| if to_drain.contains(key) { drain_limit } else { 0 };
        let parked: HashMap<&str, Vec<StoredParked>> =
            keys.iter().map(|key| (*key, self.parked(key, whole(key), &met(key)))).collect();
        let decisions = self.decisions.clone();
        let mut fold = Fold::new(decoder, LIMITS);
        for key in keys {
            let rows = &parked[key];
            let loaded = ParkedLoad::of(to_drain.contains(key), rows.len(), drain_limit);
            let decided = decisions.get(key).map(Vec::as_slice).unwrap_or_default();
            fold.add_key(key, Box::new(self.entry(key)), (rows, loaded), decided);
        }
        for ((offset, sent), head) in batch.iter().zip(heads) {
            fold.take(decoder.decode_headed(sent.record(*offset), head));
        }
        for key in heal {
            fold.heal(key, Partition(0));
        }
        let mut plan = fold.finish();
        let known =
            plan.strangers.iter().enumerate().filter(|(_, stranger)| self.knows(stranger)).map(|(place, _)| place);
        let known = known.collect();
        plan.judge(&known);
        if commit { self.store(plan) } else { heal.to_vec() }
    }

    /// As `known_strangers.sql` does.
    fn knows(&self, stranger: &Stranger<'_>) -> bool {
        let is_refused = self.dead_letters.values().any(|letter| {
            (letter.key.as_deref(), letter.sequence) == (Some(stranger.key), Some(stranger.sequence))
                && match &letter.event_id {
                    Some(event_id) => *event_id == stranger.event_id,
                    None => letter.payload.as_deref() == stranger.record.payload,
                }
        });
        let decided = self.decisions.get(stranger.key).into_iter().flatten();
        let is_skipped = decided.into_iter().any(|decision| is_skip_of(decision, stranger.sequence));
        let in_ledger = self.ledger.iter().any(|row| (row.0.as_str(), row.1) == (stranger.key, stranger.sequence));
        is_refused || is_skipped || (stranger.is_stored && !in_ledger)
    }

    fn store(&mut self, plan: Plan<'_, Basket>) -> Vec<String> {
        for (key, sequence) in &plan.drained {
            self.keys.get_mut(*key).unwrap().parked.remove(sequence).unwrap();
        }
        let fresh: Vec<_> = plan
            .new_parked()
            .iter()
            .map(|row| {
                let origin = row.record.origin();
                let payload = row.record.payload.unwrap().to_vec();
                let stored = (row.event_id.to_string(), origin, payload, row.record.headers.encoded().to_vec());
                (row.key.to_owned(), row.sequence, stored)
            })
            .collect();
        for row in &plan.ledger {
            self.ledger.push((row.key.to_owned(), row.sequence, row.event_id.to_string(), row.effect.as_str()));
            self.keys.entry(row.key.to_owned()).or_default().event_ids.push(row.event_id.to_string());
            self.history.keep(row);
        }
        for row in &plan.details {
            self.lines.push((row.basket.to_owned(), row.number, row.quantity));
        }
        for letter in &plan.dead_letters {
            let stored = Letter {
                reason: letter.poison.reason,
                key: letter.key.map(str::to_owned),
                sequence: letter.sequence,
                event_id: letter.event_id.as_deref().map(str::to_owned),
                payload: letter.record.payload.map(<[u8]>::to_vec),
            };
            assert!(self.dead_letters.insert(letter.record.origin(), stored).is_none(), "refused twice");
        }
        for counters in plan.counters.values() {
            self.counters.add(counters);
        }
        for settled in plan.settled.iter().filter(|settled| settled.refused.is_some()) {
            self.decisions.values_mut().for_each(|mine| mine.retain(|decision| decision.id != settled.id));
        }
        let mut unfinished = Vec::new();
        for (key, work) in plan.keys {
            assert_eq!(work.base_sequence, self.keys.get(key).filter(|k| k.stored).map(|k| k.last_sequence));
            if work.unfinished {
                unfinished.push(key.to_owned());
            }
            let stored = self.keys.entry(key.to_owned()).or_default();
            stored.stored = work.base_sequence.is_some() || work.changed;
            stored.last_sequence = work.entry.last_sequence;
            stored.last_event_id = work.entry.last_event_id;
            stored.state = work.entry.state;
            assert!(work.held_changed || stored.held == work.entry.held || work.was_held != work.entry.held.is_some());
            stored.held = work.entry.held;
            self.history.stood(key, stored.last_sequence, &stored.state);
        }
        for (key, sequence, row) in fresh {
            assert!(self.keys.get_mut(&key).unwrap().parked.insert(sequence, row).is_none(), "parked twice");
        }
        unfinished
    }
}

/// A decision that somebody would like to take after so many records.
#[derive(Debug, Clone, Copy)]
struct Wish {
    after: usize,
    order: usize,
    ahead: i64,
    length: i64,
    replace: bool,
}

/// Whether an operator went on without that number.
fn is_skip_of(decision: &StoredDecision, sequence: Sequence) -> bool {
    decision.covers(sequence) && matches!(decision.verdict, Verdict::Skip)
}

/// What an operator puts at a number.
fn substitute(order: usize, sequence: i64) -> Substitute {
    let content = if sequence == UNUSABLE { Content::Broken } else { Content::Good };
    let sent = send(Delivery { order, sequence, content });
    Substitute {
        origin: Origin { partition: Partition(0), offset: Offset(-1) },
        timestamp_ms: None,
        payload: sent.payload.replace("good-", "mended-").into_bytes(),
        headers: sent.headers,
        effect: Effect::Replaced,
    }
}

/// What stands at each number: the decision, else the first good event; folded in order as far as the numbers go.
fn oracle(history: &[Sent], order: usize, decisions: &[StoredDecision]) -> (Vec<(i64, String, &'static str)>, State) {
    let mut first: BTreeMap<i64, &Sent> = BTreeMap::new();
    for sent in history.iter().filter(|sent| sent.delivery.order == order) {
        if sent.delivery.content != Content::Broken {
            first.entry(sent.delivery.sequence).or_insert(sent);
        }
    }
    let view = Basket::new();
    let (mut ledger, mut state, mut seen) = (Vec::new(), State::default(), HashSet::new());
    let mut sequence = 1;
    loop {
        let decision = decisions.iter().find(|one| one.sequence.0 <= sequence && sequence <= one.sequence_to.0);
        let mended;
        let (sent, id, applied) = match decision.map(|decision| &decision.verdict) {
            Some(Verdict::Skip) => {
                let to = decision.map_or(sequence, |decision| decision.sequence_to.0);
                if ledger.is_empty() {
                    view.skip(&mut state, Micros::EPOCH);
                }
                seen.insert(format!("skipped:o-{order}:{to}"));
                ledger.push((to, format!("skipped:o-{order}:{to}"), "skipped"));
                sequence = to + 1;
                continue;
            }
            Some(Verdict::Take(_)) => {
                mended = send(Delivery { order, sequence, content: Content::Good });
                (&mended, format!("mended-{order}-{sequence}"), Effect::Replaced)
            }
            None => match first.get(&sequence) {
                Some(sent) => (*sent, event_id(sent.delivery), Effect::Applied),
                None => break,
            },
        };
        let decoder = Decoder {
            view: &view,
            limits: LIMITS.record,
            overrules: &Overrules::default(),
            schemas: &Schemas::default(),
        };
        let event = decoder.decode(sent.record(0)).outcome.unwrap();
        let effect = match event.parsed.event {
            _ if !seen.insert(id.clone()) => Effect::Duplicate,
            None => Effect::UnknownType,
            Some(known) => {
                view.project(event.key, &mut state, known, event.parsed.occurred_at, &mut Vec::new()).unwrap();
                applied
            }
        };
        if effect != applied {
            view.skip(&mut state, event.parsed.occurred_at);
        }
        ledger.push((sequence, id, effect.as_str()));
        sequence += 1;
    }
    (ledger, state)
}

fn deliveries() -> impl Strategy<Value = Vec<Delivery>> {
    let content = prop_oneof![
        12 => Just(Content::Good),
        1 => Just(Content::Rival),
        1 => Just(Content::Renumbered),
        1 => Just(Content::Unknown),
        1 => Just(Content::Broken),
    ];
    let delivery =
        (0..ORDERS, 1..=LAST, content).prop_map(|(order, sequence, content)| Delivery { order, sequence, content });
    let everything: Vec<Delivery> = (0..ORDERS)
        .flat_map(|order| (1..=LAST).map(move |sequence| Delivery { order, sequence, content: Content::Good }))
        .collect();
    // Any interleaving with repetitions and omissions; often followed by all that was omitted, in any order.
    (prop::collection::vec(delivery, 0..18), any::<bool>(), Just(everything).prop_shuffle()).prop_map(
        |(mut history, complete, rest)| {
            history.extend(rest.into_iter().take(if complete { usize::MAX } else { 4 }));
            history
        },
    )
}

/// Size of the next batch, drain limit, and how many crashes come before its commit.
fn batches() -> impl Strategy<Value = Vec<(usize, usize, usize)>> {
    prop::collection::vec((1usize..9, 1usize..4, 0usize..2), 1..12)
}

fn wish() -> impl Strategy<Value = Wish> {
    (0usize..30, 0..ORDERS, 1i64..3, 1i64..4, any::<bool>()).prop_map(|(after, order, ahead, length, replace)| Wish {
        after,
        order,
        ahead,
        length,
        replace,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn any_history_converges_to_the_in_order_fold(
        history in deliveries(), batches in batches(), wishes in prop::collection::vec(wish(), 0..6),
    ) {
        let history: Vec<Sent> = history.into_iter().map(send).collect();
        let mut live = Stored::default();
        live.project(&history, &batches, &wishes)?;
        // What cannot be folded with was refused, or would be when its turn comes: it counts as never made.
        let usable = |decision: &StoredDecision| decision.sequence != Sequence(UNUSABLE) || matches!(decision.verdict, Verdict::Skip);
        for order in 0..ORDERS {
            let key = format!("o-{order}");
            let mut decisions = live.decisions.get(&key).cloned().unwrap_or_default();
            decisions.retain(usable);
            let (ledger, state) = oracle(&history, order, &decisions);
            live.check(&key, &ledger, &state)?;
        }
        live.check_counters(history.len())?;
        live.check_letters(&history)?;
        live.history.check(&live.lines)?;

        // Again from the start, with the decisions known and other batches: the same rows.
        let mut replay = Stored { decisions: live.decisions.clone(), ..Stored::default() };
        replay.project(&history, &[(4, 2, 1), (1, 3, 0)], &[])?;
        let (mut again, mut before) = (replay.ledger.clone(), live.ledger.clone());
        again.sort();
        before.sort();
        prop_assert_eq!(again, before);
        let (mut again, mut before) = (replay.lines.clone(), live.lines.clone());
        again.sort();
        before.sort();
        prop_assert_eq!(again, before);
        for (key, kept) in &live.keys {
            let again = replay.keys.get(key).cloned().unwrap_or_default();
            prop_assert_eq!((&again.state, again.last_sequence), (&kept.state, kept.last_sequence));
        }
        replay.check_counters(history.len())?;
        replay.check_letters(&history)?;
    }
}

impl Stored {
    /// Consumes a history in batches, some of them crashing before their commit, and decides in between.
    fn project(&mut self, history: &[Sent], batches: &[(usize, usize, usize)], wishes: &[Wish]) -> TestResult {
        let mut plans = batches.iter().copied().cycle();
        let numbered: Vec<(i64, &Sent)> = (0i64..).zip(history).collect();
        let mut rest = numbered.as_slice();
        loop {
            let (size, drain_limit, crashes) = plans.next().unwrap();
            let (batch, later) = rest.split_at(size.min(rest.len()));
            for _ in 0..crashes {
                self.attempt(batch, &[], drain_limit, false);
            }
            let mut heal = self.attempt(batch, &[], drain_limit, true);
            let done = (history.len() - rest.len())..=(history.len() - later.len());
            for wish in wishes.iter().filter(|wish| done.contains(&wish.after)) {
                self.decide(*wish);
            }
            // The keeper comes sooner or later; at the end it has come.
            if crashes == 0 || later.is_empty() {
                heal.extend((0..ORDERS).map(|order| format!("o-{order}")).filter(|key| self.is_decided(key)));
            }
            let mut rounds = 0;
            while !heal.is_empty() {
                rounds += 1;
                prop_assert!(rounds < 50, "draining does not end");
                heal = self.attempt(&[], &heal, drain_limit, true);
            }
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn check(&self, key: &str, ledger: &[(i64, String, &'static str)], state: &State) -> TestResult {
        let mine = self.ledger.iter().filter(|row| row.0 == key).map(|row| (row.1.0, row.2.clone(), row.3));
        let mine: Vec<_> = mine.collect();
        prop_assert_eq!(&*mine, ledger);
        let Some(kept) = self.keys.get(key) else { return Ok(()) };
        prop_assert_eq!(&kept.state, state);
        prop_assert_eq!(kept.last_sequence.0, ledger.last().map_or(0, |row| row.0));
        let lines = self.lines.iter().filter(|line| line.0 == key).count();
        prop_assert_eq!(kept.state.lines as usize, lines);
        let held = kept.held.clone().unwrap_or_default();
        prop_assert_eq!(held.parked_count as usize, kept.parked.len());
        let bytes: usize = kept.parked.values().map(|row| key.len() + row.2.len() + row.3.len()).sum();
        prop_assert_eq!(held.parked_bytes as usize, bytes);
        prop_assert_eq!(held.first_parked, kept.parked.keys().next().copied());
        prop_assert!(held.refused.iter().all(|sequence| *sequence > kept.last_sequence));
        prop_assert_eq!(kept.held.is_some(), held.parked_count > 0 || !held.refused.is_empty());
        prop_assert!(kept.held.as_ref().is_none_or(|held| held.missing_from == kept.last_sequence.next()));
        Ok(())
    }

    /// Whoever came under a number that is another event's is a dead letter, wherever the batches were cut; and nobody else
    /// is told to have reused one: no late copy of what was applied or refused, and nothing under a skipped number.
    fn check_letters(&self, history: &[Sent]) -> TestResult {
        let is_decided = |key: &str, sequence: i64| {
            self.decisions.get(key).into_iter().flatten().any(|decision| decision.covers(Sequence(sequence)))
        };
        let is_skipped = |key: &str, sequence: i64| {
            self.decisions.get(key).into_iter().flatten().any(|decision| is_skip_of(decision, Sequence(sequence)))
        };
        let applied: HashSet<(&str, &str)> = self.ledger.iter().map(|row| (row.0.as_str(), row.2.as_str())).collect();
        let mut taken: HashMap<(&str, i64), String> = HashMap::new();
        let mut losers = HashSet::new();
        for sent in history.iter().filter(|sent| sent.delivery.content != Content::Broken) {
            let (key, sequence, id) = (sent.key.as_str(), sent.delivery.sequence, event_id(sent.delivery));
            let first = taken.entry((key, sequence)).or_insert_with(|| id.clone());
            // An event that was applied under another number is late, or in conflict, as the batches fall.
            if *first != id && !is_decided(key, sequence) && !applied.contains(&(key, id.as_str())) {
                losers.insert((key, sequence, id));
            }
        }
        let letters: BTreeMap<Offset, &Letter> =
            self.dead_letters.iter().map(|(origin, letter)| (origin.offset, letter)).collect();
        let mut refused = HashSet::new();
        for (offset, letter) in &letters {
            let Some(id) = letter.event_id.clone() else { continue };
            let (key, sequence) = (letter.key.as_deref().unwrap(), letter.sequence.unwrap().0);
            if letter.reason == Reason::SequenceReused {
                prop_assert!(!is_skipped(key, sequence), "{:?} was skipped", letter);
                prop_assert!(!applied.contains(&(key, id.as_str())), "{:?} was applied", letter);
                let same = |other: &&Letter| {
                    other.key == letter.key && other.sequence == letter.sequence && other.payload == letter.payload
                };
                prop_assert_eq!(
                    letters.range(..offset).map(|(_, other)| *other).find(same),
                    None,
                    "was refused before"
                );
            }
            refused.insert((key, sequence, id));
        }
        prop_assert!(losers.is_subset(&refused), "{:?} are not among {:?}", losers, refused);
        Ok(())
    }

    fn check_counters(&self, records: usize) -> TestResult {
        let Counters { consumed, applied, duplicate, late, conflict, parked, dead_lettered } = self.counters;
        prop_assert_eq!(consumed, records as i64);
        prop_assert_eq!(consumed, applied + duplicate + late + conflict + parked + dead_lettered);
        let parked_rows: usize = self.keys.values().map(|key| key.parked.len()).sum();
        prop_assert_eq!(parked as usize, parked_rows);
        prop_assert_eq!(self.dead_letters.len() as i64, conflict + dead_lettered);
        Ok(())
    }
}

fn fold_of<'a>(
    view: &'a Basket,
    limits: FoldLimits,
    (overrules, schemas): (&'a Overrules, &'a Schemas),
) -> Fold<'a, Basket> {
    Fold::new(Decoder { view, limits: limits.record, overrules, schemas }, limits)
}

fn entry_at(sequence: i64, held: Option<Held>) -> Box<KeyEntry<State>> {
    let (last_sequence, stored) = (Sequence(sequence), sequence > 0);
    Box::new(KeyEntry { last_sequence, stored, held, ..KeyEntry::default() })
}

/// After a change of the number of partitions a key has events on two of them. What it consumes belongs to the turn of the
/// partition whose record brought it on: that one moves, and the commit bears its number.
#[test]
fn what_a_key_consumes_belongs_to_the_partition_whose_turn_it_is() {
    let (view, overrules, schemas) = (Basket::new(), Overrules::default(), Schemas::default());
    let second = send(Delivery { order: 0, sequence: 2, content: Content::Good });
    let record = second.record(7);

    // What is parked behind it came from elsewhere, and is refused when its turn comes.
    let parked = [StoredParked {
        sequence: Sequence(3),
        event_id: "good-0-3".into(),
        origin: Origin { partition: Partition(5), offset: Offset(1) },
        timestamp_ms: None,
        bytes: 4,
        body: Some((b"{".to_vec(), send(Delivery { order: 0, sequence: 3, content: Content::Good }).headers)),
    }];
    let held = Held { first_parked: Some(Sequence(3)), parked_count: 1, parked_bytes: 4, ..Held::default() };
    let mut fold = fold_of(&view, LIMITS, (&overrules, &schemas));
    fold.add_key("o-0", entry_at(1, Some(held)), (&parked, ParkedLoad::All), &[]);
    let decoder = Decoder { view: &view, limits: LIMITS.record, overrules: &overrules, schemas: &schemas };
    fold.take(decoder.decode(record));
    let plan = fold.finish();
    assert_eq!((plan.ledger.len(), plan.dead_letters.len()), (1, 1));
    assert_eq!(plan.keys["o-0"].partition, Some(record.partition));

    // The next one is on another partition, which has to stop before it.
    let fourth = send(Delivery { order: 0, sequence: 4, content: Content::Good });
    let elsewhere = Record { partition: Partition(9), ..fourth.record(3) };
    let limits = FoldLimits { parked_budget: 0, ..LIMITS };
    let mut fold = fold_of(&view, limits, (&overrules, &schemas));
    fold.add_key("o-0", entry_at(1, None), (&[], ParkedLoad::All), &[]);
    fold.take(decoder.decode(record));
    fold.take(decoder.decode(elsewhere));
    let plan = fold.finish();
    assert!(plan.blocked.contains_key(&Partition(9)));
    assert_eq!((plan.ledger.len(), plan.keys["o-0"].partition), (1, Some(record.partition)));
}

/// One at a time would heal, too, a batch for each.
#[test]
fn who_fills_a_gap_has_all_that_waits_behind_it_consumed_at_once() {
    let (view, overrules, schemas) = (Basket::new(), Overrules::default(), Schemas::default());
    let decoder = Decoder { view: &view, limits: LIMITS.record, overrules: &overrules, schemas: &schemas };
    let sent = [2, 4, 3, 1].map(|sequence| send(Delivery { order: 0, sequence, content: Content::Good }));
    let mut fold = fold_of(&view, LIMITS, (&overrules, &schemas));
    fold.add_key("o-0", entry_at(0, None), (&[], ParkedLoad::All), &[]);
    for (sent, offset) in sent.iter().zip(0..) {
        fold.take(decoder.decode(sent.record(offset)));
    }
    let plan = fold.finish();
    let consumed: Vec<i64> = plan.ledger.iter().map(|row| row.sequence.0).collect();
    assert_eq!((consumed, plan.keys["o-0"].unfinished), (vec![1, 2, 3, 4], false));
}

/// Everybody writes rows in the same order, so that nobody waits in a circle.
#[test]
fn a_plan_gives_its_keys_in_order() {
    let (view, overrules, schemas) = (Basket::new(), Overrules::default(), Schemas::default());
    let decoder = Decoder { view: &view, limits: LIMITS.record, overrules: &overrules, schemas: &schemas };
    let sent = [2, 0, 1].map(|order| send(Delivery { order, sequence: 1, content: Content::Good }));
    let mut fold = fold_of(&view, LIMITS, (&overrules, &schemas));
    for sent in &sent {
        fold.add_key(&sent.key, entry_at(0, None), (&[], ParkedLoad::All), &[]);
    }
    for (sent, offset) in sent.iter().zip(0..) {
        fold.take(decoder.decode(sent.record(offset)));
    }
    let plan = fold.finish();
    assert_eq!(plan.in_order().iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["o-0", "o-1", "o-2"]);
}

/// Postgres has the last word on what it can hold: such a record is refused although the rules let it through.
#[test]
fn what_postgres_refused_is_refused_when_it_is_read_again() {
    let (view, schemas) = (Basket::new(), Schemas::default());
    let sent = send(Delivery { order: 0, sequence: 1, content: Content::Good });
    let record = sent.record(7);
    let poison = Poison::new(Reason::Unrepresentable, "Postgres says no");
    let overrules = Overrules { refused: HashMap::from([(record.origin(), poison.clone())]), ..Overrules::default() };
    let decoder = Decoder { view: &view, limits: LIMITS.record, overrules: &overrules, schemas: &schemas };
    let refused = decoder.decode(record).outcome.unwrap_err();
    assert_eq!((refused.poison, refused.place), (poison, Some(("o-0", Sequence(1)))));
    assert!(decoder.decode(sent.record(8)).outcome.is_ok());
}

#[test]
fn all_is_loaded_where_fewer_rows_came_than_were_asked_for() {
    assert_eq!([0, 9].map(|rows| ParkedLoad::of(true, rows, 10)), [ParkedLoad::All; 2]);
    assert_eq!(ParkedLoad::of(true, 10, 10), ParkedLoad::Lowest, "there may be more");
    assert_eq!(ParkedLoad::of(false, 1, 10), ParkedLoad::Presence);
}
