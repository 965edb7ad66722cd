//! The ledger: one row for each number that a key has consumed, and what that did.

use crate::domain::units::{Micros, Offset, Partition, Sequence};
use crate::domain::word::UnknownWord;

use std::borrow::Cow;
use std::str::FromStr;

/// Where an effect came from: the ledger's coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Partition of the record.
    pub partition: Partition,
    /// Offset of the record.
    pub offset: Offset,
}

impl Origin {
    /// No record: what was skipped, or made up by an operator.
    pub const NOWHERE: Origin = Origin { partition: Partition(-1), offset: Offset(-1) };
}

/// What a consumed sequence number did to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Projected.
    Applied,
    /// The event id was applied before under another number: only the sequence advanced.
    Duplicate,
    /// Unknown type: only the sequence advanced.
    UnknownType,
    /// Projected from what an operator put in the place of a refused record.
    Replaced,
    /// An operator skipped it, or a run of numbers that ends here.
    Skipped,
}

impl Effect {
    /// All effects.
    pub const ALL: [Effect; 5] =
        [Effect::Applied, Effect::Duplicate, Effect::UnknownType, Effect::Replaced, Effect::Skipped];

    /// The word in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Effect::Applied => "applied",
            Effect::Duplicate => "duplicate",
            Effect::UnknownType => "unknown_type",
            Effect::Replaced => "replaced",
            Effect::Skipped => "skipped",
        }
    }
}

impl FromStr for Effect {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Effect::ALL.into_iter().find(|effect| effect.as_str() == word);
        found.ok_or_else(|| UnknownWord::new("effect", word, &Effect::ALL.map(Effect::as_str)))
    }
}

/// One row of the ledger: a sequence number that a key has consumed.
#[derive(Debug, Clone)]
pub struct LedgerRow<'a> {
    /// Key.
    pub key: &'a str,
    /// Its number.
    pub sequence: Sequence,
    /// Event id.
    pub event_id: Cow<'a, str>,
    /// Event type.
    pub event_type: Cow<'a, str>,
    /// When it happened.
    pub occurred_at: Micros,
    /// Where it was read.
    pub origin: Origin,
    /// What it did.
    pub effect: Effect,
    /// The payload as JSON: as consumed, or for Avro as [`crate::codec::avro::Event::json`] writes it; none in a compact
    /// history.
    pub payload: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queries tell made-up effects from read ones by their place: no partition and no offset is negative.
    #[test]
    fn nowhere_is_no_place_of_a_log() {
        assert_eq!(Origin::NOWHERE, Origin { partition: Partition(-1), offset: Offset(-1) });
    }

    #[test]
    fn an_effect_reads_back_and_an_unknown_one_is_named() {
        for effect in Effect::ALL {
            assert_eq!(effect.as_str().parse(), Ok(effect));
        }
        assert!(
            "undone"
                .parse::<Effect>()
                .unwrap_err()
                .to_string()
                .starts_with("\"undone\" is no effect; known are applied")
        );
    }
}
