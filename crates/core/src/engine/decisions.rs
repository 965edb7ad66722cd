//! What operators decided about single events, as the fold sees it. Plain data.

use crate::domain::action::Action;
use crate::domain::ledger::{Effect, Origin};
use crate::domain::record::{Headers, Record};
use crate::domain::units::{Micros, Millis, Sequence};

/// A decision about the numbers `sequence` to `sequence_to` of one key.
#[derive(Debug, Clone)]
pub struct StoredDecision {
    /// Row id.
    pub id: i64,
    /// First number.
    pub sequence: Sequence,
    /// Last number.
    pub sequence_to: Sequence,
    /// What happens there.
    pub verdict: Verdict,
    /// Why, as the operator said.
    pub reason: String,
    /// When it was made.
    pub decided_at: Micros,
    /// Whether this build has yet to say what became of it.
    pub is_awaited: bool,
}

/// What happens at the decided numbers.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// They are consumed without effect.
    Skip,
    /// This record stands there, whatever the log holds.
    Take(Box<Substitute>),
}

/// A record that takes the place of another.
#[derive(Debug, Clone)]
pub struct Substitute {
    /// Where the refused record was read.
    pub origin: Origin,
    /// Its timestamp.
    pub timestamp_ms: Option<Millis>,
    /// Value.
    pub payload: Vec<u8>,
    /// Encoded headers.
    pub headers: Vec<u8>,
    /// What the ledger says of it: replaced, or applied if it is the record itself.
    pub effect: Effect,
}

impl StoredDecision {
    /// Whether it says what happens at `sequence`.
    pub fn covers(&self, sequence: Sequence) -> bool {
        (self.sequence..=self.sequence_to).contains(&sequence)
    }

    /// The word in `event_decisions.action`, as far as the fold can tell.
    pub fn action(&self) -> &'static str {
        match &self.verdict {
            Verdict::Skip => Action::Skip.as_str(),
            Verdict::Take(substitute) if substitute.effect == Effect::Replaced => Action::Replace.as_str(),
            Verdict::Take(_) => Action::Redrive.as_str(),
        }
    }
}

impl Substitute {
    /// The record, under `key`.
    pub fn record<'a>(&'a self, key: &'a str) -> Record<'a> {
        Record {
            partition: self.origin.partition,
            offset: self.origin.offset,
            timestamp_ms: self.timestamp_ms,
            key: Some(key.as_bytes()),
            payload: Some(&self.payload),
            headers: Headers::from_encoded(&self.headers),
        }
    }
}

/// What a batch made of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Row id.
    pub id: i64,
    /// Why no build can fold with it; `None` if this one did.
    pub refused: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::{Offset, Partition};

    fn decision(verdict: Verdict) -> StoredDecision {
        let (sequence, sequence_to) = (Sequence(3), Sequence(5));
        StoredDecision {
            id: 1,
            sequence,
            sequence_to,
            verdict,
            reason: "lost".into(),
            decided_at: Micros::EPOCH,
            is_awaited: false,
        }
    }

    fn substitute(effect: Effect) -> Verdict {
        let origin = Origin { partition: Partition(0), offset: Offset(0) };
        Verdict::Take(Box::new(Substitute { origin, timestamp_ms: None, payload: vec![], headers: vec![], effect }))
    }

    #[test]
    fn a_decision_covers_its_numbers_and_no_other() {
        let covered: Vec<i64> = (0..10).filter(|n| decision(Verdict::Skip).covers(Sequence(*n))).collect();
        assert_eq!(covered, [3, 4, 5]);
    }

    #[test]
    fn a_verdict_has_the_word_of_the_action_behind_it() {
        let words = [Verdict::Skip, substitute(Effect::Replaced), substitute(Effect::Applied)]
            .map(|verdict| decision(verdict).action());
        assert_eq!(words, ["skip", "replace", "redrive"]);
    }
}
