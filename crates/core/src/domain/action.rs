//! What an operator decides about an event that a view could not take, and what becomes of that.

use std::str::FromStr;

use super::word::UnknownWord;

/// What is decided about a missing event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Go on without it.
    Skip,
    /// Go on with another payload.
    Replace,
    /// Go on with the refused record as it was, which can be read by now.
    Redrive,
}

impl Action {
    /// All actions.
    pub const ALL: [Action; 3] = [Action::Skip, Action::Replace, Action::Redrive];

    /// The word in SQL, JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Skip => "skip",
            Action::Replace => "replace",
            Action::Redrive => "redrive",
        }
    }
}

impl FromStr for Action {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Action::ALL.into_iter().find(|action| action.as_str() == word);
        found.ok_or_else(|| UnknownWord::new("action", word, &Action::ALL.map(Action::as_str)))
    }
}

/// What became of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecisionStatus {
    /// Made, not folded yet.
    Pending,
    /// A build has folded with it.
    Taken,
    /// It only closes a dead letter: there is nothing to fold.
    Closed,
    /// No build can fold with it: it counts as never made.
    Refused,
}

impl DecisionStatus {
    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            DecisionStatus::Pending => "pending",
            DecisionStatus::Taken => "taken",
            DecisionStatus::Closed => "closed",
            DecisionStatus::Refused => "refused",
        }
    }

    /// | refused | has a key | taken | status |
    /// |---|---|---|---|
    /// | yes | any | any | refused |
    /// | no | no | any | closed |
    /// | no | yes | yes | taken |
    /// | no | yes | no | pending |
    pub const fn of(is_refused: bool, has_key: bool, is_taken: bool) -> Self {
        match (is_refused, has_key, is_taken) {
            (true, _, _) => DecisionStatus::Refused,
            (false, false, _) => DecisionStatus::Closed,
            (false, true, true) => DecisionStatus::Taken,
            (false, true, false) => DecisionStatus::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_refused_or_closed_before_it_is_taken() {
        let status = |refused, has_key, taken| DecisionStatus::of(refused, has_key, taken).as_str();
        for (has_key, taken) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(status(true, has_key, taken), "refused");
        }
        assert_eq!([status(false, false, false), status(false, false, true)], ["closed", "closed"]);
        assert_eq!([status(false, true, true), status(false, true, false)], ["taken", "pending"]);
    }

    #[test]
    fn a_word_reads_back_and_an_unknown_one_is_named_with_those_that_are_known() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        let error = "explode".parse::<Action>().unwrap_err().to_string();
        assert_eq!(error, "\"explode\" is no action; known are skip, replace, redrive");
    }
}
