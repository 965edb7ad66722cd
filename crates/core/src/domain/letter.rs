//! What became of a dead letter.

use std::str::FromStr;

use super::word::UnknownWord;

/// State of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LetterStatus {
    /// Nothing is decided.
    Open,
    /// Decided, not folded yet.
    Deciding,
    /// The view goes on without it.
    Skipped,
    /// The view goes on with a corrected payload.
    Replaced,
    /// The view goes on with it as it was.
    Redriven,
    /// The decision could not be followed.
    Refused,
}

impl LetterStatus {
    /// All states.
    pub const ALL: [LetterStatus; 6] = [
        LetterStatus::Open,
        LetterStatus::Deciding,
        LetterStatus::Skipped,
        LetterStatus::Replaced,
        LetterStatus::Redriven,
        LetterStatus::Refused,
    ];

    /// The word in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            LetterStatus::Open => "open",
            LetterStatus::Deciding => "deciding",
            LetterStatus::Skipped => "skipped",
            LetterStatus::Replaced => "replaced",
            LetterStatus::Redriven => "redriven",
            LetterStatus::Refused => "refused",
        }
    }

    /// Whether it still wants a decision: there is none, or none that could be followed.
    pub const fn wants_a_decision(self) -> bool {
        matches!(self, LetterStatus::Open | LetterStatus::Refused)
    }
}

impl FromStr for LetterStatus {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = LetterStatus::ALL.into_iter().find(|status| status.as_str() == word);
        let known = || LetterStatus::ALL.map(LetterStatus::as_str);
        found.ok_or_else(|| UnknownWord::new("status of a dead letter", word, &known()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undecided_or_could_not_be_followed_wants_a_decision() {
        let wanting: Vec<_> = LetterStatus::ALL.into_iter().filter(|status| status.wants_a_decision()).collect();
        assert_eq!(wanting, [LetterStatus::Open, LetterStatus::Refused]);
    }

    #[test]
    fn every_word_reads_back() {
        for status in LetterStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert!("opened".parse::<LetterStatus>().is_err());
    }
}
