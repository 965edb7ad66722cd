//! Decides what to do with an envelope. No I/O, no clock.

use crate::domain::units::Sequence;

/// What happens to one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Next in sequence: project it.
    Apply,
    /// Already applied, under this number or (`by_event_id`) an earlier one.
    Duplicate {
        /// The same event came again under the next number: the sequence advances, nothing else does.
        by_event_id: bool,
    },
    /// Older than the last applied event: skip it.
    Late,
    /// Older, with an id that the key's ledger does not hold: a late copy of what was refused or given up, or another event
    /// under a number that is taken.
    Stranger,
    /// Ahead of a missing event: park it.
    Gap,
    /// The number is taken by another event.
    Conflict,
}

/// What is known of a key when one of its events arrives.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Sequence of the last applied event; one less than the first sequence for an unknown key.
    pub last_sequence: Sequence,
    /// Id of the last applied event.
    pub last_event_id: Option<&'a str>,
    /// Whether the ledger of this key holds the arriving event id.
    pub event_id_in_ledger: InLedger,
}

/// What a key's ledger says of an event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InLedger {
    /// It is one of the key's events.
    Yes,
    /// It is none of them.
    No,
    /// There is no ledger to tell.
    Untold,
}

/// The rules of the sequence.
///
/// | sequence | event id | decision |
/// |---|---|---|
/// | `= last + 1` | not in the key's ledger, or untold | [`Decision::Apply`] |
/// | `= last + 1` | in the key's ledger | [`Decision::Duplicate`] by event id |
/// | `= last` | the same | [`Decision::Duplicate`] |
/// | `= last` | another | [`Decision::Conflict`] |
/// | `< last` | in the key's ledger, or untold | [`Decision::Late`] |
/// | `< last` | not in the key's ledger | [`Decision::Stranger`] |
/// | `> last + 1` | any | [`Decision::Gap`] |
pub fn decide(known: Known<'_>, sequence: Sequence, event_id: &str) -> Decision {
    let last = known.last_sequence;
    match sequence {
        _ if sequence == last.next() && known.event_id_in_ledger == InLedger::Yes => {
            Decision::Duplicate { by_event_id: true }
        }
        _ if sequence == last.next() => Decision::Apply,
        _ if sequence > last => Decision::Gap,
        _ if sequence < last && known.event_id_in_ledger == InLedger::No => Decision::Stranger,
        _ if sequence < last => Decision::Late,
        _ if known.last_event_id == Some(event_id) => Decision::Duplicate { by_event_id: false },
        _ => Decision::Conflict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_truth_table() {
        let decide = |known, sequence, event_id| super::decide(known, Sequence(sequence), event_id);
        let event_id_in_ledger = InLedger::No;
        let known = Known { last_sequence: Sequence(7), last_event_id: Some("e7"), event_id_in_ledger };
        assert_eq!(decide(known, 8, "e8"), Decision::Apply);
        assert_eq!(
            decide(Known { event_id_in_ledger: InLedger::Yes, ..known }, 8, "e3"),
            Decision::Duplicate { by_event_id: true }
        );
        assert_eq!(decide(known, 7, "e7"), Decision::Duplicate { by_event_id: false });
        assert_eq!(decide(known, 7, "other"), Decision::Conflict);
        assert_eq!(decide(Known { event_id_in_ledger: InLedger::Untold, ..known }, 8, "e8"), Decision::Apply);
        assert_eq!(decide(Known { event_id_in_ledger: InLedger::Yes, ..known }, 6, "e6"), Decision::Late);
        assert_eq!(decide(Known { event_id_in_ledger: InLedger::Untold, ..known }, 6, "e6"), Decision::Late);
        assert_eq!(decide(known, 6, "other"), Decision::Stranger);
        assert_eq!(decide(known, 9, "e9"), Decision::Gap);
        let unknown = Known { last_sequence: Sequence(0), last_event_id: None, event_id_in_ledger };
        assert_eq!(decide(unknown, 1, "e1"), Decision::Apply);
        assert_eq!(decide(unknown, 2, "e2"), Decision::Gap);
    }
}
