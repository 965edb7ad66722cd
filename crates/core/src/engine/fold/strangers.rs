//! Late events that are none of their keys' events. Most are copies of what was refused or given up; a producer that has
//! lost its counter sends others. The fold only notes them, as they change no key; who they are is judged when it is done.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::{Fold, Outcome};
use crate::domain::poison::{Poison, Reason};
use crate::domain::record::Record;
use crate::domain::units::{Partition, Sequence};
use crate::engine::decode::Event;
use crate::engine::plan::{DeadLetter, Plan, Stranger};
use crate::engine::view::View;

impl<'a, V: View> Fold<'a, V> {
    /// Notes a late event that its key's ledger does not know; `partition` is where it counts.
    pub(super) fn meet_stranger(&mut self, event: Event<'a, V>, record: Record<'a>, partition: Partition) -> Outcome {
        let Event { key, sequence, parsed, .. } = event;
        let work = self.work(key);
        let last_sequence = work.entry.last_sequence;
        let is_stored = work.base_sequence.is_some_and(|base| sequence <= base);
        let letters_before = self.plan.dead_letters.len();
        self.plan.tally.late += 1;
        let event_id = parsed.event_id;
        let stranger =
            Stranger { key, sequence, event_id, record, last_sequence, is_stored, partition, letters_before };
        self.plan.strangers.push(stranger);
        Outcome::Late
    }
}

impl Stranger<'_> {
    /// Whether the letter is about this very event: known by its id, or byte for byte where no id could be read.
    fn is_copy_of(&self, letter: &DeadLetter<'_>) -> bool {
        match &letter.event_id {
            Some(event_id) => *event_id == self.event_id,
            None => letter.record.payload == self.record.payload,
        }
    }

    fn refusal(&self) -> Poison {
        let Stranger { key, sequence, event_id, last_sequence, .. } = self;
        let detail = format!(
            "`{key}` has consumed its numbers up to {last_sequence}, and number {sequence} was another event's; this is event \
             `{event_id}`, which it never had: its producer may have lost count"
        );
        Poison::new(Reason::SequenceReused, detail)
    }
}

impl<'a, V: View> Plan<'a, V> {
    /// Says who the strangers are: one that is not `known` by its place among them, and no copy of a letter of this plan
    /// that came before it, reuses a number. It becomes a dead letter, and holds nothing.
    pub fn judge(&mut self, known: &HashSet<usize>) {
        let strangers = std::mem::take(&mut self.strangers);
        if strangers.is_empty() {
            return;
        }
        let mut letters: HashMap<(&str, Sequence), Vec<usize>, RandomState> = HashMap::default();
        for (index, letter) in self.dead_letters.iter().enumerate() {
            if let Some(place) = letter.key.zip(letter.sequence) {
                letters.entry(place).or_default().push(index);
            }
        }
        let mut refused: HashSet<(&str, Sequence, String), RandomState> = HashSet::default();
        for (place, stranger) in strangers.into_iter().enumerate() {
            let Stranger { key, sequence, letters_before, .. } = stranger;
            let earlier = letters.get(&(key, sequence)).into_iter().flatten();
            let is_copy = earlier
                .take_while(|index| **index < letters_before)
                .any(|index| stranger.is_copy_of(&self.dead_letters[*index]));
            if known.contains(&place) || is_copy || !refused.insert((key, sequence, stranger.event_id.to_string())) {
                continue;
            }
            self.refuse_stranger(stranger);
        }
    }

    fn refuse_stranger(&mut self, stranger: Stranger<'a>) {
        let poison = stranger.refusal();
        let counters = self.counters.entry(stranger.partition).or_default();
        counters.late -= 1;
        counters.conflict += 1;
        self.tally.late -= 1;
        *self.tally.dead_letters.entry(poison.reason.as_str()).or_default() += 1;
        let Stranger { key, sequence, event_id, record, .. } = stranger;
        let (key, sequence, event_id) = (Some(key), Some(sequence), Some(event_id));
        self.dead_letters.push(DeadLetter { poison, key, sequence, event_id, record });
    }
}
