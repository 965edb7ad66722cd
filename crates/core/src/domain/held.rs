//! Why a key does not move on.

use std::str::FromStr;

use super::word::UnknownWord;

/// Why a key is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeldReason {
    /// An event has not arrived.
    Gap,
    /// It arrived and could not be read.
    Poison,
    /// It carries the id of another key's latest event.
    EventIdReused,
    /// Its number is taken by another event.
    Conflict,
}

impl HeldReason {
    /// All reasons.
    pub const ALL: [HeldReason; 4] =
        [HeldReason::Gap, HeldReason::Poison, HeldReason::EventIdReused, HeldReason::Conflict];

    /// The words of all reasons.
    pub const WORDS: [&str; 4] = [
        HeldReason::Gap.as_str(),
        HeldReason::Poison.as_str(),
        HeldReason::EventIdReused.as_str(),
        HeldReason::Conflict.as_str(),
    ];

    /// The word in SQL, JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            HeldReason::Gap => "gap",
            HeldReason::Poison => "poison",
            HeldReason::EventIdReused => "event_id_reused",
            HeldReason::Conflict => "conflict",
        }
    }
}

impl FromStr for HeldReason {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = HeldReason::ALL.into_iter().find(|reason| reason.as_str() == word);
        found.ok_or_else(|| UnknownWord::new("reason of a held key", word, &HeldReason::WORDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        assert_eq!(HeldReason::ALL.map(HeldReason::as_str), HeldReason::WORDS);
        assert_eq!(HeldReason::WORDS.map(str::parse), HeldReason::ALL.map(Ok));
        assert!("gaps".parse::<HeldReason>().is_err());
    }
}
