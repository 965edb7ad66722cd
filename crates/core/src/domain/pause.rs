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
    /// For whom, if who has logged in said so.
    pub on_behalf_of: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

impl fmt::Display for ViewPause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ViewPause { reason, actor, on_behalf_of, since } = self;
        match on_behalf_of {
            Some(other) => write!(formatter, "paused by {actor} on behalf of {other} since {since}: {reason}"),
            None => write!(formatter, "paused by {actor} since {since}: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_who_since_when_and_why() {
        let since = "2026-11-28T12:00:00Z".parse().unwrap();
        let (reason, actor) = ("wrong prices upstream".to_owned(), "ada".to_owned());
        let mut pause = ViewPause { reason, actor, on_behalf_of: None, since };
        assert_eq!(pause.to_string(), "paused by ada since 2026-11-28T12:00:00Z: wrong prices upstream");
        pause.on_behalf_of = Some("eve".to_owned());
        assert!(pause.to_string().starts_with("paused by ada on behalf of eve since "), "{pause}");
    }
}
