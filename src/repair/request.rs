//! What can be asked of the repair desk, after its form was checked by whoever took it (API or command line).

use super::import::IMPORTED;
use crate::domain::action::Action;
use crate::domain::letter::LetterStatus;
use crate::domain::poison::Reason;
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// Most characters of a reason.
pub const MAX_REASON_CHARS: usize = 500;
/// Most keys or letters that one bulk call looks at.
pub const MAX_BULK: u32 = 100_000;
/// As many if the caller does not say.
pub const DEFAULT_BULK: u32 = 10_000;

/// Any status.
const ALL: &str = "all";
/// Most seconds of an age: a hundred years.
const MAX_AGE_SECONDS: i64 = 3_155_760_000;

/// An age in seconds: a whole number of them, or an ISO 8601 duration such as `PT15M` or `P1D`; a day has 24 hours.
pub fn age(text: &str) -> Option<i64> {
    let seconds = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()?
    } else {
        let span: jiff::Span = text.parse().ok()?;
        span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?.as_secs()
    };
    (0..=MAX_AGE_SECONDS).contains(&seconds).then_some(seconds)
}

/// What the first of two ages is compared with the second, where nothing can be as old as the one and newer than the other.
pub fn empty_window(older_than: Option<i64>, newer_than: Option<i64>) -> Option<&'static str> {
    (older_than? > newer_than?).then_some("longer ago than")
}

/// What an age may look like.
pub const AGE_FORM: &str =
    "must be a number of seconds or an ISO 8601 duration such as PT15M or P1D, at most 100 years";

/// Who decides, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// 1 to 500 characters.
    pub reason: String,
    /// Whoever it is.
    pub actor: String,
    /// For whom, as who has logged in says; `None` where nobody logs in. Left out of what a call is known by then, so that
    /// calls of before are known by the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
}

impl Why {
    /// Why, in the words of whoever it is.
    pub fn new(reason: impl Into<String>, actor: impl Into<String>) -> Why {
        Why { reason: reason.into(), actor: actor.into(), on_behalf_of: None }
    }
}

/// Which held keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HeldFilter {
    /// Held for one of these reasons; empty: any.
    pub reasons: Vec<String>,
    /// Exactly this key.
    pub key: Option<String>,
    /// Held for at least so many seconds.
    pub older_than: Option<i64>,
    /// Held for less than so many seconds.
    pub newer_than: Option<i64>,
    /// Only gaps whose missing event is known not to be in the log, or only others.
    pub proven: Option<bool>,
    /// Only keys without refused numbers ahead: skipping all that is missing would skip these, too. Nor those that a hold does
    /// not remember.
    pub nothing_refused: bool,
}

/// Which dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LetterFilter {
    /// In one of these states; empty: any.
    pub statuses: Vec<String>,
    /// Refused for one of these reasons; empty: any.
    pub reasons: Vec<String>,
    /// Of exactly this key.
    pub key: Option<String>,
    /// Of exactly this topic.
    pub topic: Option<String>,
    /// Refused at least so many seconds ago.
    pub older_than: Option<i64>,
    /// Refused less than so many seconds ago.
    pub newer_than: Option<i64>,
    /// Only these; `None`: any.
    pub ids: Option<Vec<i64>>,
}

/// Every reason that a letter of ours may have.
pub fn known_reasons() -> Vec<&'static str> {
    Reason::ALL.iter().map(|reason| reason.as_str()).chain([IMPORTED]).collect()
}

/// Open ones unless others are asked for; none named: any.
pub fn statuses(asked: Vec<String>) -> Vec<String> {
    match asked.as_slice() {
        [] => vec![LetterStatus::Open.as_str().to_owned()],
        asked if asked.iter().any(|status| status == ALL) => Vec::new(),
        _ => asked,
    }
}

/// The statuses that may be asked for.
pub fn known_statuses() -> Vec<&'static str> {
    LetterStatus::ALL.map(LetterStatus::as_str).into_iter().chain([ALL]).collect()
}

/// Which decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecisionFilter {
    /// About this key.
    pub key: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// Of this kind.
    pub action: Option<Action>,
}

/// A skip of missing numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkipHeld {
    /// The key.
    pub key: String,
    /// First number; `None`: the one that it waits for.
    pub from: Option<i64>,
    /// Last number; `None`: `from`, or everything that is missing if that is left out too.
    pub to: Option<i64>,
}

/// A payload to go on with in place of a refused record.
#[derive(Debug, Clone, Serialize)]
pub struct Replacement {
    /// The letter.
    pub id: i64,
    /// A JSON object, taken as it is written, or a string that holds the text.
    pub payload: Box<RawValue>,
    /// Headers to set, or to take away (`None`).
    pub headers: Vec<(String, Option<String>)>,
    /// The key, where the letter has none.
    pub key: Option<String>,
    /// The number, where the letter has none.
    pub sequence: Option<i64>,
    /// Sets `x-event-type`.
    pub event_type: Option<String>,
    /// Sets `x-event-version`.
    pub event_version: Option<u32>,
}

/// How much of a filter a bulk call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BulkBounds {
    /// Change nothing.
    pub dry_run: bool,
    /// Look at so many at most.
    pub limit: u32,
    /// How many the caller knows to match; must be right unless it is a dry run.
    pub expect: Option<usize>,
}

/// A decision that is asked for.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Skip missing numbers of one key.
    SkipHeld(SkipHeld),
    /// Skip one letter.
    SkipLetter(i64),
    /// Replace one letter.
    Replace(Replacement),
    /// Redrive one letter.
    Redrive(i64),
    /// Skip everything that is missing of every held key that matches.
    SkipHeldByFilter(HeldFilter, BulkBounds),
    /// Skip every letter that matches.
    SkipLettersByFilter(LetterFilter, BulkBounds),
    /// Redrive every letter that matches.
    RedriveByFilter(LetterFilter, BulkBounds),
}

impl Request {
    /// What is decided.
    pub fn action(&self) -> Action {
        match self {
            Request::SkipHeld(_)
            | Request::SkipLetter(_)
            | Request::SkipHeldByFilter(..)
            | Request::SkipLettersByFilter(..) => Action::Skip,
            Request::Replace(_) => Action::Replace,
            Request::Redrive(_) | Request::RedriveByFilter(..) => Action::Redrive,
        }
    }

    /// Whether it changes nothing.
    pub fn is_dry_run(&self) -> bool {
        match self {
            Request::SkipHeldByFilter(_, bulk)
            | Request::SkipLettersByFilter(_, bulk)
            | Request::RedriveByFilter(_, bulk) => bulk.dry_run,
            _ => false,
        }
    }

    /// By which a repeated call is known: equal for requests that ask for the same, however they were written.
    pub fn fingerprint(&self, view: &str, why: &Why) -> Vec<u8> {
        let text = serde_json::to_vec(&(view, self, why)).expect("requests are plain data");
        Sha256::digest(text).to_vec()
    }
}

impl Replacement {
    /// The value of the record, byte for byte.
    pub fn value(&self) -> Vec<u8> {
        let raw = self.payload.get();
        match serde_json::from_str::<String>(raw) {
            Ok(text) => text.into_bytes(),
            Err(_) => raw.as_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_seconds_or_durations() {
        for (text, seconds) in
            [("0", 0), ("90", 90), ("PT15M", 900), ("P1D", 86_400), ("P1DT1H", 90_000), ("2h", 7_200)]
        {
            assert_eq!(age(text), Some(seconds), "{text}");
        }
        for bad in ["", "-1", "-PT5M", "P1M", "P1Y", "soon", "3155760001", "99999999999999999999", "1.5"] {
            assert_eq!(age(bad), None, "{bad}");
        }
    }
}
