//! When a decision about the numbers of a key may be made. Pure: no I/O, no clock.
//!
//! A decision is about numbers that the key still wants. What is decided once is not decided again, what is consumed
//! cannot be unmade, and nobody decides about numbers that the key may never come to.

use crate::domain::action::Action;

/// A decision that was made earlier and not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Its id.
    pub id: i64,
    /// What was decided.
    pub action: Action,
    /// First number.
    pub sequence: i64,
    /// Last number.
    pub sequence_to: i64,
    /// Whether a build has folded with it.
    pub taken: bool,
}

/// What a held key waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The last missing number before the first parked event; `None` while nothing is parked.
    pub to: Option<i64>,
    /// The greatest refused number ahead.
    pub greatest_refused: Option<i64>,
}

/// What is known of a key, at the moment that its view's commits are locked out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its last consumed number; one less than the first number for a key that nobody has seen. `None`: cannot be told.
    pub last: Option<i64>,
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
    AlreadyConsumed(i64),
    /// An event with that number is parked: it is there, nothing is missing.
    NumberIsParked(i64),
    /// The key may not come to them: it waits for the first number, and can be decided about up to the second.
    OutOfReach(i64, i64),
    /// The view does not tell how far its keys are, and this one is not held.
    Unknown,
}

impl KeyFacts {
    /// The earlier decision about `sequence`, if there is one.
    pub fn decision_about(&self, sequence: i64) -> Option<&Decided> {
        self.decided.iter().find(|decided| decided.sequence <= sequence && sequence <= decided.sequence_to)
    }

    /// The greatest number that can be decided about.
    fn reach(&self, last: i64) -> i64 {
        let next = last.saturating_add(1);
        let ahead = self.missing.iter().flat_map(|missing| [missing.to, missing.greatest_refused]);
        ahead.flatten().fold(next, i64::max)
    }

    /// Whether the numbers `from` to `to` may be decided about; `parked` is the lowest parked number among them.
    ///
    /// | the numbers | answer |
    /// |---|---|
    /// | touch an earlier decision | [`NotNow::AlreadyDecided`] |
    /// | begin at or before the last consumed one | [`NotNow::AlreadyConsumed`] |
    /// | cover a parked one | [`NotNow::NumberIsParked`] |
    /// | end after the next, the last missing and the greatest refused one | [`NotNow::OutOfReach`] |
    /// | else | allowed |
    pub fn may_decide(&self, from: i64, to: i64, parked: Option<i64>) -> Result<(), NotNow> {
        let touched = self.decided.iter().find(|decided| decided.sequence <= to && from <= decided.sequence_to);
        if let Some(decided) = touched {
            return Err(NotNow::AlreadyDecided(decided.clone()));
        }
        let last = self.last.ok_or(NotNow::Unknown)?;
        if from <= last {
            return Err(NotNow::AlreadyConsumed(last));
        }
        if let Some(parked) = parked {
            return Err(NotNow::NumberIsParked(parked));
        }
        let reach = self.reach(last);
        if to > reach { Err(NotNow::OutOfReach(last + 1, reach)) } else { Ok(()) }
    }

    /// Everything that is missing: up to the first parked event or, if none is parked, the greatest refused number; cut
    /// before the next number that is decided about.
    pub fn missing_range(&self) -> Result<(i64, i64), NotNow> {
        let last = self.last.ok_or(NotNow::Unknown)?;
        let from = last.saturating_add(1);
        if let Some(decided) = self.decision_about(from) {
            return Err(NotNow::AlreadyDecided(decided.clone()));
        }
        let to = self.missing.and_then(|missing| missing.to.or(missing.greatest_refused)).unwrap_or(from).max(from);
        let next_decided = self.decided.iter().map(|decided| decided.sequence).filter(|first| *first > from).min();
        Ok((from, next_decided.map_or(to, |first| to.min(first - 1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(sequence: i64, sequence_to: i64) -> Decided {
        Decided { id: 7, action: Action::Skip, sequence, sequence_to, taken: false }
    }

    fn held(last: i64, to: Option<i64>, greatest_refused: Option<i64>, decided: &[Decided]) -> KeyFacts {
        KeyFacts { last: Some(last), missing: Some(Missing { to, greatest_refused }), decided: decided.to_vec() }
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
            (3, 4, None, Err(NotNow::AlreadyConsumed(3))),
            (1, 1, None, Err(NotNow::AlreadyConsumed(3))),
            (6, 9, Some(7), Err(NotNow::NumberIsParked(7))),
            (10, 10, None, Err(NotNow::OutOfReach(4, 9))),
            (9, i64::MAX, None, Err(NotNow::OutOfReach(4, 9))),
        ] {
            assert_eq!(facts.may_decide(from, to, parked), expected, "{from} to {to}");
        }
        let free = KeyFacts { last: Some(3), ..KeyFacts::default() };
        assert_eq!(free.may_decide(4, 4, None), Ok(()));
        assert_eq!(free.may_decide(5, 5, None), Err(NotNow::OutOfReach(4, 4)));
        assert_eq!(KeyFacts::default().may_decide(1, 1, None), Err(NotNow::Unknown));
    }

    #[test]
    fn what_is_missing_ends_before_what_is_parked_or_decided() {
        assert_eq!(held(3, Some(6), None, &[]).missing_range(), Ok((4, 6)));
        assert_eq!(held(3, Some(6), Some(9), &[]).missing_range(), Ok((4, 6)));
        assert_eq!(held(3, None, Some(9), &[]).missing_range(), Ok((4, 9)));
        assert_eq!(held(3, Some(6), None, &[decided(6, 6)]).missing_range(), Ok((4, 5)));
        assert_eq!(held(3, Some(6), None, &[decided(1, 2)]).missing_range(), Ok((4, 6)));
        assert_eq!(
            held(3, Some(6), None, &[decided(4, 4)]).missing_range(),
            Err(NotNow::AlreadyDecided(decided(4, 4)))
        );
        // A stored bound behind the key, left by a drain that was cut short.
        assert_eq!(held(3, Some(2), None, &[]).missing_range(), Ok((4, 4)));
    }
}
