//! What a batch knows and changes: entries of keys, what is parked behind them, and the plan that is committed whole.
//! Plain data; [`super::fold`] fills it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;

use crate::domain::counters::Counters;
use crate::domain::decision::{Decision, InLedger, Known, decide};
use crate::domain::history::History;
use crate::domain::ledger::{LedgerRow, Origin};
use crate::domain::poison::Poison;
use crate::domain::record::Record;
use crate::domain::units::{Millis, Offset, Partition, Sequence};
use crate::engine::decisions::{Settled, StoredDecision};
use crate::engine::event_ids::{EventIds, Fingerprint};
use crate::engine::view::View;

/// By key. Several looks per event: the standard hasher would cost more than the rest of a look.
pub type ByKey<'a, T> = HashMap<&'a str, T, RandomState>;

/// What is known of a key between batches.
#[derive(Debug, Default)]
pub struct KeyEntry<S> {
    /// Sequence of the last consumed event; `first_sequence.previous()` before the first.
    pub last_sequence: Sequence,
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

impl<S> KeyEntry<S> {
    /// The key has consumed the event `id`. Without history nobody could tell the earlier ones after a reload.
    pub fn remember(&mut self, id: Fingerprint, history: History) {
        if history == History::Off {
            self.event_ids = EventIds::default();
        }
        self.event_ids.insert(id);
    }

    /// Whether what is parked behind the key, `there`, has to be loaded to heal it: some of it is not ahead any more, or it is
    /// not what the hold says. Another process consumed what was missing, or did not know of what we had parked; or a drain
    /// was cut short, which leaves a guess of where it goes on.
    pub fn is_in_need(&self, there: Option<ParkedSummary>) -> bool {
        let held = self.held.as_ref();
        let counted = held.map_or(0, |held| i64::from(held.parked_count));
        match there {
            Some(there) => {
                let first = held.and_then(|held| held.first_parked);
                there.lowest <= self.last_sequence.next() || there.count != counted || first != Some(there.lowest)
            }
            None => counted != 0,
        }
    }
}

/// What is parked behind a key, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkedSummary {
    /// The lowest number.
    pub lowest: Sequence,
    /// How many events.
    pub count: i64,
}

/// Why and for what a key waits. It waits for `last_sequence.next()`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The number that it waits for as it is stored. A lane that did not know how far another one has come may have stored an
    /// earlier one.
    pub missing_from: Sequence,
    /// Lowest parked sequence, if any is parked.
    pub first_parked: Option<Sequence>,
    /// Events parked.
    pub parked_count: i32,
    /// Their bytes.
    pub parked_bytes: i64,
    /// Refused sequences ahead.
    pub refused: BTreeSet<Sequence>,
}

/// A parked event, as loaded from its table.
#[derive(Debug)]
pub struct StoredParked {
    /// Its sequence.
    pub sequence: Sequence,
    /// Its id.
    pub event_id: String,
    /// Where it was read.
    pub origin: Origin,
    /// Record timestamp.
    pub timestamp_ms: Option<Millis>,
    /// Bytes of key, value and headers.
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
    pub sequence: Sequence,
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
    pub sequence: Option<Sequence>,
    /// The event id, if the record could be read.
    pub event_id: Option<Cow<'a, str>>,
    /// The record, byte for byte.
    pub record: Record<'a>,
}

/// A late event whose id its key's ledger does not hold. It counts as late until [`Plan::judge`] says otherwise.
#[derive(Debug, Clone)]
pub struct Stranger<'a> {
    /// Key.
    pub key: &'a str,
    /// Its number.
    pub sequence: Sequence,
    /// Its id.
    pub event_id: Cow<'a, str>,
    /// The record, byte for byte.
    pub record: Record<'a>,
    /// The last number that the key had consumed by then.
    pub last_sequence: Sequence,
    /// Whether its number was consumed before this batch, so that the stored ledger can be asked about it.
    pub is_stored: bool,
    /// The partition on which it is counted.
    pub partition: Partition,
    /// So many of the plan's dead letters were there before it.
    pub letters_before: usize,
}

/// Counts for metrics, over the whole batch.
#[derive(Debug, Default)]
pub struct Tally {
    /// Applied events by the place of their type in [`crate::engine::view::ViewSpec::event_types`]; the last count is that of
    /// all other types.
    pub by_type: Vec<u64>,
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
    /// Decisions folded with, by action.
    pub decisions: HashMap<&'static str, u64>,
}

/// A key in work: its entry, what is parked behind it, and what the batch did to it.
#[derive(Debug)]
pub struct Work<'a, S> {
    /// The entry, changed in place. Boxed: it moves between cache, batch and plan.
    pub entry: Box<KeyEntry<S>>,
    /// What was decided about numbers ahead.
    pub decisions: Vec<&'a StoredDecision>,
    /// A decision was folded with, or refused.
    pub decided: bool,
    /// Sequence of the stored row when the batch began; `None` if there was none.
    pub base_sequence: Option<Sequence>,
    /// The view's row has to be written.
    pub changed: bool,
    /// The held row has to be written or removed.
    pub held_changed: bool,
    /// Whether a held row was stored when the batch began.
    pub was_held: bool,
    /// More is parked than was loaded: drain again after this batch.
    pub unfinished: bool,
    /// What is parked behind it, as far as it was loaded.
    pub parked: BTreeMap<Sequence, Parked<'a>>,
    /// Up to here all that is parked was loaded whole; `None` if that is everything.
    pub horizon: Option<Sequence>,
    /// The partition in whose turn the key was last worked on: it moves with the batch. `None` if the batch stopped before
    /// the key's first record.
    pub partition: Option<Partition>,
}

#[derive(Debug)]
/// A parked event in the fold.
pub struct Parked<'a> {
    /// Its id.
    pub event_id: Cow<'a, str>,
    /// The record, if it was loaded.
    pub record: Option<Record<'a>>,
    /// Whether it is stored already.
    pub stored: bool,
    /// Bytes of key, value and headers.
    pub bytes: i64,
}

/// Everything that one batch changes.
#[derive(Debug)]
pub struct Plan<'a, V: View> {
    /// Keys touched.
    pub keys: ByKey<'a, Work<'a, V::State>>,
    /// New ledger rows.
    pub ledger: Vec<LedgerRow<'a>>,
    /// New rows of the view's further tables.
    pub details: Vec<V::Detail<'a>>,
    /// Parked events that have been drained and were stored.
    pub drained: Vec<(&'a str, Sequence)>,
    /// New dead letters.
    pub dead_letters: Vec<DeadLetter<'a>>,
    /// Late events that are none of their keys' events, in the order in which they came.
    pub strangers: Vec<Stranger<'a>>,
    /// Counters per partition.
    pub counters: BTreeMap<Partition, Counters>,
    /// For metrics.
    pub tally: Tally,
    /// Partitions that had to stop before a record, with its offset and why.
    pub blocked: BTreeMap<Partition, (Offset, String)>,
    /// What became of decisions.
    pub settled: Vec<Settled>,
}

impl<'a, V: View> Plan<'a, V> {
    /// Keys touched, in order: rows are written in the same order by everybody, so nobody waits in a circle.
    pub fn in_order(&self) -> Vec<(&'a str, &Work<'a, V::State>)> {
        let mut keys: Vec<_> = self.keys.iter().map(|(key, work)| (*key, work)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys
    }

    /// Events parked by this plan that stay parked, to be stored.
    pub fn new_parked(&self) -> Vec<NewParked<'_>> {
        let parked = self.keys.iter().flat_map(|(key, work)| {
            let fresh = work.parked.iter().filter(|(_, parked)| !parked.stored);
            fresh.filter_map(move |(sequence, parked)| {
                let record = parked.record?;
                Some(NewParked { key, sequence: *sequence, event_id: Cow::Borrowed(&parked.event_id), record })
            })
        });
        let mut parked: Vec<_> = parked.collect();
        parked.sort_unstable_by_key(|parked| (parked.key, parked.sequence));
        parked
    }
}

impl<S> Work<'_, S> {
    /// Applies the rules of the sequence.
    pub fn decide(&self, sequence: Sequence, (event_id, id): (&str, Fingerprint), history: History) -> Decision {
        let last = self.entry.last_sequence;
        let event_id_in_ledger = match self.entry.event_ids.contains(id) {
            // Only the latest id is kept, which is enough for the next event and for none before it.
            _ if history == History::Off && sequence != last.next() => InLedger::Untold,
            true => InLedger::Yes,
            false => InLedger::No,
        };
        let last_event_id = self.entry.last_event_id.as_deref();
        decide(Known { last_sequence: last, last_event_id, event_id_in_ledger }, sequence, event_id)
    }

    /// Whether something that is not ahead any more, or next, waits to be consumed.
    pub fn has_next(&self) -> bool {
        let next = self.entry.last_sequence.next();
        self.parked.first_key_value().is_some_and(|(first, _)| *first <= next)
            || self.decisions.iter().any(|decision| decision.covers(next))
    }

    /// The entry as it is once the plan is committed.
    pub fn into_entry(self) -> Box<KeyEntry<S>> {
        let mut entry = self.entry;
        entry.stored = self.base_sequence.is_some() || self.changed;
        entry
    }

    /// Counts one event out of the parked ones.
    pub fn count_out(&mut self, sequence: Sequence, bytes: i64) {
        // Beyond the horizon anything may be parked: the next number is the safe guess.
        let next =
            self.parked.keys().next().copied().filter(|next| self.horizon.is_none_or(|horizon| *next <= horizon));
        if let Some(held) = self.entry.held.as_mut() {
            held.parked_count -= 1;
            // Holds of before headers counted know of fewer.
            held.parked_bytes = if held.parked_count > 0 { (held.parked_bytes - bytes).max(0) } else { 0 };
            held.first_parked = if held.parked_count > 0 { Some(next.unwrap_or(sequence.next())) } else { None };
            self.held_changed = true;
        }
    }

    /// A key that waits for nothing is not held.
    pub fn forget_empty_hold(&mut self) {
        if self.entry.held.as_ref().is_some_and(|held| held.parked_count == 0 && held.refused.is_empty()) {
            self.entry.held = None;
        }
    }

    /// After the batch: what is behind us is no longer missing, and no longer to be decided; a key that waits for nothing is
    /// not held.
    pub fn settle(&mut self) {
        let last = self.entry.last_sequence;
        let mut unfinished = false;
        if let Some(held) = self.entry.held.as_mut() {
            let before = (held.refused.len(), held.missing_from);
            held.refused.retain(|sequence| *sequence > last);
            held.missing_from = last.next();
            self.held_changed |= before != (held.refused.len(), held.missing_from) || self.changed;
            // A lower bound that was passed: what is parked lies further on, perhaps right here.
            held.first_parked = held.first_parked.map(|first| first.max(last.next()));
            unfinished = held.first_parked == Some(last.next());
        }
        self.unfinished = unfinished || self.decisions.iter().any(|decision| decision.covers(last.next()));
        self.decisions.retain(|decision| decision.sequence_to > last);
        self.forget_empty_hold();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::Micros;
    use crate::engine::decisions::Verdict;

    fn work(last: i64, held: Held) -> Work<'static, ()> {
        let entry = KeyEntry { last_sequence: Sequence(last), held: Some(held), ..KeyEntry::default() };
        Work {
            entry: Box::new(entry),
            decisions: Vec::new(),
            decided: false,
            base_sequence: None,
            changed: false,
            held_changed: false,
            was_held: true,
            unfinished: false,
            parked: BTreeMap::new(),
            horizon: None,
            partition: None,
        }
    }

    /// The hold of a key that has consumed 3.
    fn refusing(numbers: &[i64]) -> Held {
        let refused = numbers.iter().copied().map(Sequence).collect();
        Held { missing_from: Sequence(4), refused, ..Held::default() }
    }

    #[test]
    fn without_history_only_the_latest_id_is_remembered() {
        let [first, second] = ["first", "second"].map(Fingerprint::of);
        for (history, remembers_the_first) in
            [(History::Off, false), (History::Compact, true), (History::Payload, true)]
        {
            let mut entry = KeyEntry::<()>::default();
            entry.remember(first, history);
            entry.remember(second, history);
            let remembered = [first, second].map(|id| entry.event_ids.contains(id));
            assert_eq!(remembered, [remembers_the_first, true], "{history:?}");
        }
    }

    #[test]
    fn a_held_row_is_written_when_what_is_missing_or_the_key_changed() {
        for (refused, changed, written) in [(&[2, 5][..], false, true), (&[5], true, true), (&[5], false, false)] {
            let mut work = Work { changed, ..work(3, refusing(refused)) };
            work.settle();
            assert_eq!((work.held_changed, work.entry.held), (written, Some(refusing(&[5]))), "{refused:?} {changed}");
        }
    }

    #[test]
    fn a_held_row_is_written_when_another_lane_stored_what_is_consumed_as_missing() {
        let mut work = work(3, Held { missing_from: Sequence(2), ..refusing(&[5]) });
        work.settle();
        assert_eq!((work.held_changed, work.entry.held), (true, Some(refusing(&[5]))));
    }

    /// A key is remembered only where none is ahead.
    #[test]
    fn decisions_about_numbers_that_lie_behind_are_not_kept() {
        let decided = [(1, 1), (2, 3), (3, 4), (9, 9)].map(|(from, to)| StoredDecision {
            id: from,
            sequence: Sequence(from),
            sequence_to: Sequence(to),
            verdict: Verdict::Skip,
            reason: "lost".into(),
            decided_at: Micros::EPOCH,
            is_awaited: true,
        });
        let cases = [(0, &[1, 2, 3, 9][..], true), (3, &[3, 9], true), (4, &[9], false), (9, &[], false)];
        for (last, kept, unfinished) in cases {
            let mut work = work(last, Held::default());
            work.decisions = decided.iter().collect();
            work.settle();
            let ahead: Vec<i64> = work.decisions.iter().map(|decision| decision.id).collect();
            assert_eq!((&*ahead, work.unfinished), (kept, unfinished), "{last}");
        }
    }

    #[test]
    fn a_key_is_stored_where_it_was_or_where_its_row_is_written() {
        for (base_sequence, changed, stored) in [
            (None, false, false),
            (Some(Sequence(1)), false, true),
            (None, true, true),
            (Some(Sequence(1)), true, true),
        ] {
            let work = Work { base_sequence, changed, ..work(1, Held::default()) };
            assert_eq!(work.into_entry().stored, stored, "{base_sequence:?} {changed}");
        }
    }

    #[test]
    fn nothing_is_parked_first_once_the_last_is_counted_out() {
        let held = Held { first_parked: Some(Sequence(4)), parked_count: 2, parked_bytes: 30, ..Held::default() };
        let mut work = work(3, held);
        let after = [(4, 10), (5, 20)].map(|(sequence, bytes)| {
            work.count_out(Sequence(sequence), bytes);
            let held = work.entry.held.as_ref().unwrap();
            (held.first_parked, held.parked_count, held.parked_bytes)
        });
        assert_eq!(after, [(Some(Sequence(5)), 1, 20), (None, 0, 0)]);
    }

    #[test]
    fn a_hold_that_knew_of_too_few_bytes_has_none_once_nothing_is_parked() {
        let mut work = work(3, Held { parked_count: 1, parked_bytes: 5, ..refusing(&[9]) });
        work.count_out(Sequence(4), 30);
        let held = work.entry.held.as_ref().unwrap();
        assert_eq!((held.parked_count, held.parked_bytes), (0, 0));
    }
}
