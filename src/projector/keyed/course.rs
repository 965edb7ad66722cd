//! One batch on its way through its attempts: what is to be healed, how much is drained at once, and what Postgres has said
//! of single records.

use std::collections::{HashMap, HashSet};

use crate::domain::ledger::Origin;
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::Partition;
use crate::engine::decode::Overrules;
use crate::failure::Failure;
use crate::projector::applier::{Blame, Part, Partitions};
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
    /// What overrules the decisions.
    pub overrules: Overrules,
    /// Nobody was found to blame once already.
    is_at_a_loss: bool,
}

impl Course {
    /// A batch, or keys to heal, set out.
    pub fn new(heal: Heal) -> Self {
        Course { heal, drain_limit: DRAIN_LIMIT, overrules: Overrules::default(), is_at_a_loss: false }
    }

    /// The next keys to heal whose partitions are ours.
    pub fn heal_of(&self, owned: &Partitions) -> Vec<(&str, Partition)> {
        let ours = self.heal.iter().take(HEAL_KEYS).filter(|(_, partition)| owned.contains_key(partition));
        ours.map(|(key, partition)| (key.as_str(), *partition)).collect()
    }

    /// After a commit: the keys that had no turn yet are next, then what it has left to drain.
    pub fn go_on(&mut self, unfinished: Heal) {
        self.heal.drain(..self.heal.len().min(HEAL_KEYS));
        self.add(unfinished);
        self.is_at_a_loss = false;
        self.drain_limit = DRAIN_LIMIT;
    }

    /// Goes on with what another one has left to drain, too; each key once.
    pub fn join(mut self, other: Course) -> Self {
        self.add(other.heal);
        self.drain_limit = self.drain_limit.min(other.drain_limit);
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

    /// Something of the attempt cannot be stored. Asks for fewer records until one is alone, then drains less, and refuses
    /// what is left.
    pub async fn blame<V: Stored>(
        &mut self,
        part: &Part<'_>,
        session: &Session<V>,
        context: &ViewContext,
        detail: &str,
    ) -> Result<Blame, Failure> {
        let records = part.len();
        if records > 1 {
            return Ok(Blame::Halve);
        }
        if self.drain_limit > 1 {
            // Not the record itself but something that it drains, perhaps: drain less, then one by one.
            self.drain_limit = if records == 1 { 0 } else { self.drain_limit / 2 };
        } else if records == 1 {
            if let Some((_, record)) = part.batch.iter().nth(part.start) {
                self.refuse(record.origin(), detail)?;
            }
        } else if self.heal.len() > 1 {
            // Several keys heal at once: the sweep brings the others back.
            self.heal.truncate(self.heal.len().min(HEAL_KEYS) / 2);
        } else if let Some((key, _)) = self.heal.first() {
            // One key: what was decided for it, or the lowest parked event, whose turn it is then.
            let decided = session.next_substitute(context, key).await?;
            let bad = match decided.filter(|origin| !self.is_refused(*origin)) {
                Some(_) if self.drain_limit > 0 => {
                    self.drain_limit = 0;
                    return Ok(Blame::Settled);
                }
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
        }
        Ok(Blame::Settled)
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
    use crate::domain::units::{Epoch, NextOffset};
    use crate::projector::applier::Owned;

    fn keys(numbers: impl Iterator<Item = usize>) -> Heal {
        numbers.map(|number| (format!("o-{number}"), Partition(0))).collect()
    }

    #[test]
    fn keys_beyond_a_step_have_the_next_one_and_come_before_who_had_a_turn() {
        let ours = Owned { generation: 1, owner_epoch: Epoch(1), next_offset: NextOffset(0), decisions: 0, commits: 0 };
        let owned = Partitions::from([(Partition(0), ours)]);
        let (mut course, mut seen) = (Course::new(keys(0..1_200)), BTreeSet::new());
        for step in 0..3 {
            let turn: Vec<String> = course.heal_of(&owned).into_iter().map(|(key, _)| key.to_owned()).collect();
            assert_eq!(turn.len(), HEAL_KEYS, "step {step}");
            seen.extend(turn);
            // Two of each step have more to drain.
            course.go_on(keys(500 * step..500 * step + 300));
        }
        assert_eq!(seen.len(), 1_200);
    }
}
