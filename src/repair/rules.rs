//! When a decision about the numbers of a key may be made. Pure: no I/O, no clock.
//!
//! A decision is about numbers that the key still wants. What is decided once is not decided again, what is consumed
//! cannot be unmade, and nobody decides about numbers that the key may never come to.

use std::fmt;

use crate::domain::action::Action;
use crate::domain::units::Sequence;

/// A run of numbers of one key: the first and the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Numbers {
    /// The first one.
    pub from: Sequence,
    /// The last one, inclusive.
    pub to: Sequence,
}

impl Numbers {
    /// One number alone.
    pub const fn one(sequence: Sequence) -> Numbers {
        Numbers { from: sequence, to: sequence }
    }

    /// Whether some number is in both.
    const fn touch(self, other: Numbers) -> bool {
        self.from.0 <= other.to.0 && other.from.0 <= self.to.0
    }
}

/// `number 4`, or `numbers 4 to 6`.
impl fmt::Display for Numbers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Numbers { from, to } if from == to => write!(formatter, "number {from}"),
            Numbers { from, to } => write!(formatter, "numbers {from} to {to}"),
        }
    }
}

/// A decision that was made earlier and not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Its id.
    pub id: i64,
    /// What was decided.
    pub action: Action,
    /// What it is about.
    pub numbers: Numbers,
    /// Whether a build has folded with it.
    pub taken: bool,
}

/// What a held key waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The last missing number before the first parked event; `None` while nothing is parked.
    pub to: Option<Sequence>,
    /// The greatest refused number ahead.
    pub greatest_refused: Option<Sequence>,
}

/// What is known of a key, at the moment that its view's commits are locked out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its last consumed number; one less than the first number for a key that nobody has seen. `None`: cannot be told.
    pub last: Option<Sequence>,
    /// Set if it is held.
    pub missing: Option<Missing>,
    /// Earlier decisions, by number; they do not overlap.
    pub decided: Vec<Decided>,
}

/// Why numbers cannot be decided about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotNow {
    /// There is a decision about (some of) them.
    AlreadyDecided(Decided),
    /// The key has consumed (some of) them; this is its last consumed number.
    AlreadyConsumed(Sequence),
    /// An event with that number is parked: it is there, nothing is missing.
    NumberIsParked(Sequence),
    /// The key may not come to them.
    OutOfReach {
        /// The number that it waits for.
        waits_for: Sequence,
        /// The greatest number that can be decided about.
        reach: Sequence,
    },
    /// The view does not tell how far its keys are, and this one is not held.
    Unknown,
}

impl KeyFacts {
    /// The earlier decision about `sequence`, if there is one.
    pub fn decision_about(&self, sequence: Sequence) -> Option<&Decided> {
        self.decided.iter().find(|decided| decided.numbers.touch(Numbers::one(sequence)))
    }

    /// The greatest number that can be decided about.
    fn reach(&self, last: Sequence) -> Sequence {
        let ahead = self.missing.iter().flat_map(|missing| [missing.to, missing.greatest_refused]);
        ahead.flatten().fold(last.next(), Sequence::max)
    }

    /// Whether `numbers` may be decided about; `parked` is the lowest parked number among them.
    ///
    /// | the numbers | answer |
    /// |---|---|
    /// | are all consumed, and not with a decision that is yet to be taken | [`NotNow::AlreadyConsumed`] |
    /// | touch an earlier decision | [`NotNow::AlreadyDecided`] |
    /// | begin at or before the last consumed one | [`NotNow::AlreadyConsumed`] |
    /// | cover a parked one | [`NotNow::NumberIsParked`] |
    /// | end after the next, the last missing and the greatest refused one | [`NotNow::OutOfReach`] |
    /// | else | allowed |
    pub fn may_decide(&self, numbers: Numbers, parked: Option<Sequence>) -> Result<(), NotNow> {
        if let Some(decided) = self.decided.iter().find(|decided| decided.numbers.touch(numbers)) {
            // What is decided and done is behind the key like any other number: a letter that came after it can be closed.
            return Err(match self.last.filter(|last| decided.taken && numbers.to <= *last) {
                Some(last) => NotNow::AlreadyConsumed(last),
                None => NotNow::AlreadyDecided(decided.clone()),
            });
        }
        let last = self.last.ok_or(NotNow::Unknown)?;
        if numbers.from <= last {
            return Err(NotNow::AlreadyConsumed(last));
        }
        if let Some(parked) = parked {
            return Err(NotNow::NumberIsParked(parked));
        }
        let reach = self.reach(last);
        if numbers.to > reach { Err(NotNow::OutOfReach { waits_for: last.next(), reach }) } else { Ok(()) }
    }

    /// Everything that is missing: up to the first parked event or, if none is parked, the greatest refused number; cut
    /// before the next number that is decided about.
    pub fn missing_range(&self) -> Result<Numbers, NotNow> {
        let from = self.last.ok_or(NotNow::Unknown)?.next();
        if let Some(decided) = self.decision_about(from) {
            return Err(NotNow::AlreadyDecided(decided.clone()));
        }
        let to = self.missing.and_then(|missing| missing.to.or(missing.greatest_refused)).unwrap_or(from).max(from);
        let next_decided = self.decided.iter().map(|decided| decided.numbers.from).filter(|first| *first > from).min();
        Ok(Numbers { from, to: next_decided.map_or(to, |first| to.min(first.previous())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(from: i64, to: i64) -> Numbers {
        Numbers { from: Sequence(from), to: Sequence(to) }
    }

    fn decided(from: i64, to: i64) -> Decided {
        Decided { id: 7, action: Action::Skip, numbers: numbers(from, to), taken: false }
    }

    fn out_of_reach(waits_for: i64, reach: i64) -> NotNow {
        NotNow::OutOfReach { waits_for: Sequence(waits_for), reach: Sequence(reach) }
    }

    fn held(last: i64, to: Option<i64>, greatest_refused: Option<i64>, decided: &[Decided]) -> KeyFacts {
        let missing = Missing { to: to.map(Sequence), greatest_refused: greatest_refused.map(Sequence) };
        KeyFacts { last: Some(Sequence(last)), missing: Some(missing), decided: decided.to_vec() }
    }

    #[test]
    fn every_row_of_the_rules() {
        // 3 is consumed, 4 to 6 are missing, 7 is parked, 9 was refused.
        let facts = held(3, Some(6), Some(9), &[decided(5, 5)]);
        for (from, to, parked, expected) in [
            (4, 4, None, Ok(())),
            (6, 6, None, Ok(())),
            (9, 9, None, Ok(())),
            (4, 6, None, Err(NotNow::AlreadyDecided(decided(5, 5)))),
            (5, 5, None, Err(NotNow::AlreadyDecided(decided(5, 5)))),
            (3, 4, None, Err(NotNow::AlreadyConsumed(Sequence(3)))),
            (1, 1, None, Err(NotNow::AlreadyConsumed(Sequence(3)))),
            (6, 9, Some(7), Err(NotNow::NumberIsParked(Sequence(7)))),
            (10, 10, None, Err(out_of_reach(4, 9))),
            (9, i64::MAX, None, Err(out_of_reach(4, 9))),
        ] {
            assert_eq!(facts.may_decide(numbers(from, to), parked.map(Sequence)), expected, "{from} to {to}");
        }
        let free = KeyFacts { last: Some(Sequence(3)), ..KeyFacts::default() };
        assert_eq!(free.may_decide(numbers(4, 4), None), Ok(()));
        assert_eq!(free.may_decide(numbers(5, 5), None), Err(out_of_reach(4, 4)));
        assert_eq!(KeyFacts::default().may_decide(numbers(1, 1), None), Err(NotNow::Unknown));

        // A decision that was taken is behind the key; one that waits is in the way, wherever its numbers are.
        let taken = Decided { taken: true, ..decided(2, 3) };
        for (last, decision, expected) in [
            (3, taken.clone(), NotNow::AlreadyConsumed(Sequence(3))),
            (2, taken.clone(), NotNow::AlreadyDecided(taken)),
            (3, decided(2, 3), NotNow::AlreadyDecided(decided(2, 3))),
        ] {
            let facts = KeyFacts { last: Some(Sequence(last)), decided: vec![decision], ..KeyFacts::default() };
            assert_eq!(facts.may_decide(numbers(3, 3), None), Err(expected));
        }
    }

    #[test]
    fn what_is_missing_ends_before_what_is_parked_or_decided() {
        assert_eq!(held(3, Some(6), None, &[]).missing_range(), Ok(numbers(4, 6)));
        assert_eq!(held(3, Some(6), Some(9), &[]).missing_range(), Ok(numbers(4, 6)));
        assert_eq!(held(3, None, Some(9), &[]).missing_range(), Ok(numbers(4, 9)));
        assert_eq!(held(3, Some(6), None, &[decided(6, 6)]).missing_range(), Ok(numbers(4, 5)));
        assert_eq!(held(3, Some(6), None, &[decided(1, 2)]).missing_range(), Ok(numbers(4, 6)));
        assert_eq!(
            held(3, Some(6), None, &[decided(4, 4)]).missing_range(),
            Err(NotNow::AlreadyDecided(decided(4, 4)))
        );
        // A stored bound behind the key, left by a drain that was cut short.
        assert_eq!(held(3, Some(2), None, &[]).missing_range(), Ok(numbers(4, 4)));
    }
}
