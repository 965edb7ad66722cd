//! What a view keeps of the events that it has consumed.

use serde::{Deserialize, Serialize};

/// What is kept of each consumed event beside its effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// A row of the ledger with the event's payload.
    #[default]
    Payload,
    /// A row of the ledger without it.
    Compact,
    /// Nothing. An event id that comes again under a later number is then recognised only if it is the key's latest.
    Off,
}

impl History {
    /// What both keep.
    #[must_use]
    pub const fn common(self, other: History) -> History {
        match (self, other) {
            (History::Off, _) | (_, History::Off) => History::Off,
            (History::Compact, _) | (_, History::Compact) => History::Compact,
            (History::Payload, History::Payload) => History::Payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_histories_have_in_common_what_the_shorter_one_keeps() {
        let ordered = [History::Off, History::Compact, History::Payload];
        for (place, one) in ordered.into_iter().enumerate() {
            for (other_place, other) in ordered.into_iter().enumerate() {
                assert_eq!(one.common(other), ordered[place.min(other_place)]);
            }
        }
    }
}
