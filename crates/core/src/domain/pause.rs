//! A view that an operator has paused: why, by whom, since when, and how that is said to people.

use std::fmt;

use jiff::Timestamp;

/// The stable name of a pause in answers, lags and metrics.
pub const PAUSED: &str = "paused";

/// Nothing of the view is applied until somebody resumes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewPause {
    /// Why, in the operator's words.
    pub reason: String,
    /// Who has said so.
    pub actor: String,
    /// Since when.
    pub since: Timestamp,
}

impl fmt::Display for ViewPause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ViewPause { reason, actor, since } = self;
        write!(formatter, "paused by {actor} since {since}: {reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_who_since_when_and_why() {
        let since = "2026-11-28T12:00:00Z".parse().unwrap();
        let pause = ViewPause { reason: "wrong prices upstream".to_owned(), actor: "ada".to_owned(), since };
        assert_eq!(pause.to_string(), "paused by ada since 2026-11-28T12:00:00Z: wrong prices upstream");
    }
}
