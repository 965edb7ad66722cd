//! One batch on its way through its attempts: what is to be healed, how much is drained at once, and what Postgres has said
//! of single records.

use std::collections::{HashMap, HashSet};

use crate::domain::ledger::Origin;
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::{Partition, Sequence};
use crate::engine::decisions::{StoredDecision, Verdict};
use crate::engine::decode::Overrules;
use crate::failure::Failure;
use crate::projector::applier::{Blame, Part};
use crate::projector::context::ViewContext;
use crate::projector::keyed::session::Session;
use crate::store::rows::Stored;

/// Keys that are to be drained without a record, with their partitions.
pub type Heal = Vec<(String, Partition)>;

/// Parked events drained per key in one transaction.
const DRAIN_LIMIT: usize = 2_000;

/// Keys healed in one attempt: what is drained for all of them together fits into a batch, and each has its share of it.
const HEAL_KEYS: usize = 500;

/// What an attempt leaves for the next one.
#[derive(Debug)]
pub struct Course {
    /// Keys to drain, without records.
    pub heal: Heal,
    /// Most parked events drained per key and attempt.
    pub drain_limit: usize,
    /// Most keys healed in one attempt.
    keys_at_once: usize,
    /// What overrules the decisions.
    pub overrules: Overrules,
    /// Nobody was found to blame once already.
    is_at_a_loss: bool,
}

impl Course {
    /// A batch, or keys to heal, set out.
    pub fn new(heal: Heal) -> Self {
        let (drain_limit, keys_at_once, overrules) = (DRAIN_LIMIT, HEAL_KEYS, Overrules::default());
        Course { heal, drain_limit, keys_at_once, overrules, is_at_a_loss: false }
    }

    /// The next keys to heal whose partitions are ours. None beside records: one that cannot be healed would fail with each
    /// part of them.
    pub fn heal_of(&self, part: &Part<'_>) -> Vec<(&str, Partition)> {
        let turn = if part.is_empty() { self.turn() } else { 0 };
        let ours = self.heal.iter().take(turn).filter(|(_, partition)| part.owned.contains_key(partition));
        ours.map(|(key, partition)| (key.as_str(), *partition)).collect()
    }

    /// Whether it is looked for what cannot be stored: one event of a key is tried at a time then.
    pub fn is_searching(&self) -> bool {
        self.drain_limit <= 1
    }

    /// How many keys are next.
    fn turn(&self) -> usize {
        self.heal.len().min(self.keys_at_once)
    }

    /// After a commit: the keys that had no turn yet are next, then what it has left to drain.
    pub fn go_on(&mut self, part: &Part<'_>, unfinished: Heal) {
        if part.is_empty() {
            let turn = self.turn();
            self.heal.drain(..turn);
        }
        self.add(unfinished);
        self.is_at_a_loss = false;
        (self.drain_limit, self.keys_at_once) = (DRAIN_LIMIT, HEAL_KEYS);
    }

    /// Goes on with what another one has left to drain, too; each key once.
    pub fn join(mut self, other: Course) -> Self {
        self.add(other.heal);
        self.drain_limit = self.drain_limit.min(other.drain_limit);
        self.keys_at_once = self.keys_at_once.min(other.keys_at_once);
        self.overrules.refused.extend(other.overrules.refused);
        self.overrules.holders.extend(other.overrules.holders);
        self
    }

    /// Further keys to heal; each once.
    fn add(&mut self, keys: Heal) {
        let known: HashSet<String> = self.heal.iter().map(|(key, _)| key.clone()).collect();
        self.heal.extend(keys.into_iter().filter(|(key, _)| !known.contains(key)));
    }

    /// Notes whose latest events these ids are; whether that is new.
    pub fn learn_holders(&mut self, holders: HashMap<String, String>) -> bool {
        let before = self.overrules.holders.len();
        self.overrules.holders.extend(holders);
        self.overrules.holders.len() > before
    }

    /// Something of the attempt cannot be stored. Asks for fewer records until one is alone, then drains nothing with it, and
    /// refuses what is left.
    pub async fn blame<V: Stored>(
        &mut self,
        part: &Part<'_>,
        session: &Session<V>,
        context: &ViewContext,
        detail: &str,
    ) -> Result<Blame, Failure> {
        match part.len() {
            0 => self.blame_keys(session, context, detail).await?,
            // Not the record itself but something that it drains, perhaps, which has its turn when the records are done.
            1 if self.drain_limit > 0 => self.drain_limit = 0,
            1 => return self.blame_record(part, session, context, detail).await,
            _ => return Ok(Blame::Halve),
        }
        Ok(Blame::Settled)
    }

    /// Of a record with which nothing drains: what was decided for its key goes ahead of it and is blamed for itself, then the
    /// record is.
    async fn blame_record<V: Stored>(
        &mut self,
        part: &Part<'_>,
        session: &Session<V>,
        context: &ViewContext,
        detail: &str,
    ) -> Result<Blame, Failure> {
        let Some((_, record)) = part.batch.iter().nth(part.start) else { return Ok(Blame::Settled) };
        let key = std::str::from_utf8(record.key.unwrap_or_default()).unwrap_or_default();
        let decided = session.next_substitute(context, key).await?;
        if decided.is_some_and(|origin| !self.is_refused(origin)) {
            self.go_ahead(key, record.partition);
            return Ok(Blame::KeyFirst);
        }
        self.refuse(record.origin(), detail)?;
        Ok(Blame::Settled)
    }

    /// This key is the next to heal, and alone.
    fn go_ahead(&mut self, key: &str, partition: Partition) {
        self.heal.retain(|(other, _)| other != key);
        self.heal.insert(0, (key.to_owned(), partition));
        self.keys_at_once = 1;
    }

    /// Of keys that heal, until one is alone: what was decided for it, or the lowest parked event, whose turn it is then.
    async fn blame_keys<V: Stored>(
        &mut self,
        session: &Session<V>,
        context: &ViewContext,
        detail: &str,
    ) -> Result<(), Failure> {
        if self.try_less() {
            return Ok(());
        }
        let Some((key, _)) = self.heal.first() else {
            return Err(unwritable(format!("nothing but positions is to be written: {detail}")));
        };
        let decided = session.next_substitute(context, key).await?.filter(|origin| !self.is_refused(*origin));
        // Each is tried alone before it is blamed: a decision with nothing parked, a parked event without a decision.
        let alone = usize::from(decided.is_none());
        if self.drain_limit != alone {
            self.drain_limit = alone;
            return Ok(());
        }
        let bad = match decided {
            Some(origin) => Some(origin),
            None => session.lowest_parked(context, key).await?,
        };
        match bad {
            Some(origin) => self.refuse(origin, detail)?,
            // Somebody else may have drained it meanwhile; if not, it would be tried for ever.
            None if std::mem::replace(&mut self.is_at_a_loss, true) => {
                let detail = format!("`{key}` cannot be healed, and no event of it is to blame: {detail}");
                return Err(unwritable(detail));
            }
            None => self.drain_limit = DRAIN_LIMIT,
        }
        Ok(())
    }

    /// Fewer keys in the next attempt, the others after it; then less of a single one. `false`: it is one event already.
    fn try_less(&mut self) -> bool {
        match self.turn() {
            0 | 1 if self.drain_limit <= 1 => return false,
            0 | 1 => self.drain_limit /= 2,
            turn => self.keys_at_once = turn / 2,
        }
        true
    }

    fn is_refused(&self, origin: Origin) -> bool {
        self.overrules.refused.contains_key(&origin)
    }

    /// Refuses a record. One that was refused already is a letter by now, and that is what cannot be stored: to try it
    /// again would change nothing.
    fn refuse(&mut self, origin: Origin, detail: &str) -> Result<(), Failure> {
        let Origin { partition, offset } = origin;
        if self.is_refused(origin) {
            let detail =
                format!("the dead letter of partition {partition}, offset {offset} cannot be stored: {detail}");
            return Err(unwritable(detail));
        }
        let poison = Poison::new(Reason::Unrepresentable, format!("Postgres cannot hold it: {detail}"));
        self.overrules.refused.insert(origin, poison);
        self.drain_limit = DRAIN_LIMIT;
        Ok(())
    }
}

/// Of what was decided about a key that has come to `last`: what comes before anything else of it does, up to one record.
pub fn first_of(decided: &[StoredDecision], mut last: Sequence) -> &[StoredDecision] {
    for (place, decision) in decided.iter().enumerate() {
        match &decision.verdict {
            _ if decision.sequence_to <= last => {}
            _ if !decision.covers(last.next()) => return &decided[..place],
            Verdict::Skip => last = decision.sequence_to,
            Verdict::Take(_) => return &decided[..=place],
        }
    }
    decided
}

/// What was refused cannot be written down either. Nothing behind it is applied: a letter that is not there is lost.
fn unwritable(detail: String) -> Failure {
    Failure::halt(
        "dead_letter_unwritable",
        detail,
        "look for a trigger, constraint or type by which Postgres refuses it, and remove that, then restart",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::ledger::Effect;
    use crate::domain::record::{Headers, Record, RecordBatch};
    use crate::domain::units::{Epoch, Micros, NextOffset, Offset};
    use crate::engine::decisions::Substitute;
    use crate::projector::applier::{Owned, Partitions};
    use crate::projector::context::SkippedRanges;

    fn keys(numbers: impl Iterator<Item = usize>) -> Heal {
        numbers.map(|number| (format!("o-{number}"), Partition(0))).collect()
    }

    fn owned() -> Partitions {
        let ours = Owned { generation: 1, owner_epoch: Epoch(1), next_offset: NextOffset(0), decisions: 0, commits: 0 };
        Partitions::from([(Partition(0), ours)])
    }

    fn all_of<'a>(batch: &'a RecordBatch, owned: &'a Partitions, skipped: &'a SkippedRanges) -> Part<'a> {
        Part { batch, start: 0, end: batch.len(), owned, skipped }
    }

    fn turn(course: &Course, part: &Part<'_>) -> Vec<String> {
        course.heal_of(part).into_iter().map(|(key, _)| key.to_owned()).collect()
    }

    #[test]
    fn keys_beyond_a_step_have_the_next_one_and_come_before_who_had_a_turn() {
        let (batch, owned, skipped) = (RecordBatch::default(), owned(), SkippedRanges::new());
        let part = all_of(&batch, &owned, &skipped);
        let (mut course, mut seen) = (Course::new(keys(0..1_200)), BTreeSet::new());
        for step in 0..3 {
            let turn = turn(&course, &part);
            assert_eq!(turn.len(), HEAL_KEYS, "step {step}");
            seen.extend(turn);
            // Two of each step have more to drain.
            course.go_on(&part, keys(500 * step..500 * step + 300));
        }
        assert_eq!(seen.len(), 1_200);
    }

    #[test]
    fn what_a_batch_leaves_to_drain_has_its_turn_when_the_records_are_done() {
        let (mut batch, nothing) = (RecordBatch::default(), RecordBatch::default());
        let (partition, offset, headers) = (Partition(0), Offset(0), Headers::default());
        batch.push(1, Record { partition, offset, timestamp_ms: None, key: None, payload: None, headers }, |_| {});
        let (owned, skipped) = (owned(), SkippedRanges::new());
        let (records, rest) = (all_of(&batch, &owned, &skipped), all_of(&nothing, &owned, &skipped));
        let mut course = Course::new(Heal::new());
        for part_of_the_batch in 0..2 {
            course.go_on(&records, keys(0..=part_of_the_batch));
            assert!(turn(&course, &records).is_empty());
        }
        assert_eq!(turn(&course, &rest), ["o-0", "o-1"]);
        course.go_on(&rest, Heal::new());
        assert!(course.heal.is_empty());
    }

    #[test]
    fn where_it_is_searched_decisions_are_taken_up_to_one_record_and_none_that_lies_ahead() {
        let record = || {
            let origin = Origin { partition: Partition(0), offset: Offset(7) };
            let (payload, headers) = (Vec::new(), Vec::new());
            let record = Substitute { origin, timestamp_ms: None, payload, headers, effect: Effect::Replaced };
            Verdict::Take(Box::new(record))
        };
        let decided = |(from, to, verdict): (i64, i64, Verdict)| StoredDecision {
            id: from,
            sequence: Sequence(from),
            sequence_to: Sequence(to),
            verdict,
            reason: "why".into(),
            decided_at: Micros::EPOCH,
            is_awaited: true,
        };
        let all = [(2, 3, Verdict::Skip), (4, 4, record()), (5, 5, record()), (8, 8, record())].map(decided);
        for (last, most) in [(0, 0), (1, 2), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4), (8, 4)] {
            assert_eq!(first_of(&all, Sequence(last)).len(), most, "{last}");
        }
    }

    #[test]
    fn a_key_that_goes_ahead_of_its_record_does_so_alone_and_once() {
        let (batch, owned, skipped) = (RecordBatch::default(), owned(), SkippedRanges::new());
        let part = all_of(&batch, &owned, &skipped);
        let mut course = Course::new(keys(0..3));
        course.go_ahead("o-1", Partition(0));
        assert_eq!(turn(&course, &part), ["o-1"]);
        course.go_on(&part, Heal::new());
        assert_eq!(turn(&course, &part), ["o-0", "o-2"]);
    }

    #[test]
    fn keys_beside_one_that_cannot_be_healed_all_have_their_turn() {
        let (batch, owned, skipped) = (RecordBatch::default(), owned(), SkippedRanges::new());
        let part = all_of(&batch, &owned, &skipped);
        let (mut course, bad) = (Course::new(keys(0..1_200)), "o-700".to_owned());
        let (mut healed, mut blamed, mut attempts) = (BTreeSet::new(), Vec::new(), 0);
        while !course.heal.is_empty() {
            attempts += 1;
            let turn = turn(&course, &part);
            if blamed.is_empty() && turn.contains(&bad) {
                if !course.try_less() {
                    blamed = turn;
                }
                continue;
            }
            healed.extend(turn);
            course.go_on(&part, Heal::new());
        }
        assert_eq!((healed.len(), blamed), (1_200, vec![bad]));
        assert!(attempts < 100, "{attempts} attempts");
    }
}
