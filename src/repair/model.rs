//! What the desk tells, as plain values. How that looks as JSON and where its links lead is made in `api/ops/`.

use jiff::Timestamp;
use serde_json::Value;

use super::Obstacle;
use crate::domain::action::{Action, DecisionStatus};
use crate::domain::held::HeldReason;
use crate::domain::letter::LetterStatus;

/// A key that waits for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    /// View.
    pub view: String,
    /// The key.
    pub key: String,
    /// Why it is held.
    pub reason: HeldReason,
    /// The number it waits for.
    pub missing_from: i64,
    /// The last missing one before the first parked event; `None` while nothing is parked.
    pub missing_to: Option<i64>,
    /// Numbers ahead that arrived and were refused.
    pub refused_count: i32,
    /// Events parked behind the missing ones.
    pub parked_count: i32,
    /// Their bytes.
    pub parked_bytes: i64,
    /// Since when.
    pub since: Timestamp,
    /// Since when it is sure that the missing event is not in the log; `None`: it may still come.
    pub proven_at: Option<Timestamp>,
    /// Whether there is a decision about the number it waits for, which the projector has not taken yet.
    pub decided: bool,
}

/// A held key with everything that is known about it.
#[derive(Debug)]
pub struct HeldDetail {
    /// As in the list.
    pub held: HeldKey,
    /// The refused numbers ahead.
    pub refused: Vec<i64>,
    /// The lowest parked events.
    pub parked: Vec<ParkedEvent>,
    /// The dead letters of the key from the missing number on.
    pub dead_letters: Vec<Letter>,
    /// What was decided about the key so far, the newest first.
    pub decisions: Vec<OperatorDecision>,
    /// What can be done now.
    pub next: Vec<NextStep>,
}

/// An event that waits behind a missing one.
#[derive(Debug)]
pub struct ParkedEvent {
    /// Its number.
    pub sequence: i64,
    /// Its id.
    pub event_id: String,
    /// Its type; `None` where its value or its headers are too long to be read here.
    pub event_type: Option<String>,
    /// When it happened, says the event.
    pub occurred_at: Option<Timestamp>,
    /// Topic it was read from.
    pub topic: String,
    /// Partition of that topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// When it was parked.
    pub parked_at: Timestamp,
    /// Its value.
    pub payload: Shown,
}

/// The value of a record, as far as it is shown.
#[derive(Debug)]
pub struct Shown {
    /// How many bytes there are.
    pub bytes: i64,
    /// The first of them, or all.
    pub beginning: Vec<u8>,
    /// What was read from it as JSON text, where it is not that already.
    pub json: Option<String>,
}

/// A topic that refused records came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LettersOfTopic {
    /// Its name.
    pub topic: String,
    /// How many.
    pub letters: i64,
    /// When the newest was refused.
    pub newest_at: Timestamp,
}

/// A refused record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its id.
    pub id: i64,
    /// The view that refused it.
    pub view: String,
    /// What became of it.
    pub status: LetterStatus,
    /// Why it was refused, a stable name; that of a letter from elsewhere may be none of ours.
    pub reason: String,
    /// The sentence to it.
    pub error: String,
    /// Its key, if it could be read.
    pub key: Option<String>,
    /// Its number, if it could be read.
    pub sequence: Option<i64>,
    /// Topic it was read from.
    pub topic: String,
    /// Partition of that topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// The record's own time.
    pub record_time: Option<Timestamp>,
    /// When it was refused.
    pub created_at: Timestamp,
    /// Bytes of its value; `None`: it has none.
    pub payload_bytes: Option<i64>,
    /// The decision that answers it.
    pub decision_id: Option<i64>,
    /// Why that decision could not be followed.
    pub refused_because: Option<String>,
}

/// A dead letter, whole.
#[derive(Debug)]
pub struct LetterDetail {
    /// As in the list.
    pub letter: Letter,
    /// The record's headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The record's key.
    pub record_key: Option<Vec<u8>>,
    /// The record's value; `None`: it has none.
    pub payload: Option<Shown>,
    /// When it was published to the DLQ topic.
    pub published_at: Option<Timestamp>,
    /// The decision that answers it.
    pub decision: Option<OperatorDecision>,
    /// What can be done now.
    pub next: Vec<NextStep>,
}

/// What was decided, by whom and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorDecision {
    /// Its id.
    pub id: i64,
    /// View.
    pub view: String,
    /// What was decided.
    pub action: Action,
    /// What became of it.
    pub status: DecisionStatus,
    /// The key; `None`: it only closes a dead letter.
    pub key: Option<String>,
    /// First number that it is about.
    pub sequence: Option<i64>,
    /// Last number that it is about.
    pub sequence_to: Option<i64>,
    /// Topic of the dead letter that it answers.
    pub topic: Option<String>,
    /// Partition of that dead letter.
    pub partition: Option<i32>,
    /// Offset of that dead letter.
    pub offset: Option<i64>,
    /// Bytes of the payload to go on with.
    pub payload_bytes: Option<i64>,
    /// Why, in the words of who decided.
    pub reason: String,
    /// Who.
    pub actor: String,
    /// For whom, if who has logged in said so.
    pub on_behalf_of: Option<String>,
    /// When.
    pub decided_at: Timestamp,
    /// When the view first folded with it.
    pub taken_at: Option<Timestamp>,
    /// Why the view could not fold with it: it counts as never made.
    pub refused: Option<String>,
}

/// Something that can be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextStep {
    /// What.
    pub step: Step,
    /// What it does, in words.
    pub effect: String,
}

/// What can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Skip these numbers of a held key.
    SkipHeld {
        /// The key.
        key: String,
        /// First number.
        from: i64,
        /// Last number.
        to: i64,
    },
    /// Skip this letter.
    SkipLetter(i64),
    /// Replace a letter.
    Replace {
        /// The letter.
        id: i64,
        /// Whether the caller has to say the key.
        needs_key: bool,
        /// Whether the caller has to say the number.
        needs_sequence: bool,
    },
    /// Redrive this letter.
    Redrive(i64),
    /// See what this key waits for.
    LookAtHeld(String),
    /// See what was decided about this key.
    LookAtDecisions(String),
}

impl Step {
    /// The action that it asks for; `None`: it only looks.
    pub fn action(&self) -> Option<Action> {
        match self {
            Step::SkipHeld { .. } | Step::SkipLetter(_) => Some(Action::Skip),
            Step::Replace { .. } => Some(Action::Replace),
            Step::Redrive(_) => Some(Action::Redrive),
            Step::LookAtHeld(_) | Step::LookAtDecisions(_) => None,
        }
    }
}

/// What a call has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What a call about one key or letter has decided.
    Decided(Vec<OperatorDecision>),
    /// What a call by filter has decided, or would decide.
    InBulk(DecidedInBulk),
}

impl Outcome {
    /// How many decisions were made.
    pub fn made(&self) -> usize {
        match self {
            Outcome::Decided(decisions) => decisions.len(),
            Outcome::InBulk(bulk) => bulk.decided,
        }
    }
}

/// What a call by filter has decided, or would decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedInBulk {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Keys or letters that match the filter, up to the limit.
    pub matched: usize,
    /// More than the limit match.
    pub more: bool,
    /// Of those that match, how many can be decided about.
    pub possible: usize,
    /// Decisions made: 0 in a dry run.
    pub decided: usize,
    /// The first of those that can be decided about.
    pub sample: Vec<Subject>,
    /// How many cannot be decided about.
    pub impossible: usize,
    /// The first of them, and why.
    pub impossible_sample: Vec<Impossible>,
}

/// What a decision by filter is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A held key.
    Key(String),
    /// A letter.
    Letter(i64),
}

/// What cannot be decided about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible {
    /// The key, if there is one.
    pub key: Option<String>,
    /// The letter, if it is about one.
    pub letter: Option<i64>,
    /// The obstacle, as of the same call about it alone.
    pub obstacle: Obstacle,
    /// The obstacle in words.
    pub detail: String,
}

/// An answer as whoever called spells it. The desk keeps it for a call that is made again and never looks into it: an
/// upgraded database holds those of earlier versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Spelled {
    /// A number that goes with it.
    pub code: i32,
    /// The answer.
    pub body: Value,
}

/// What became of the letters of a DLQ topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Records read.
    pub read: usize,
    /// Letters that are in the table now and were not before.
    pub imported: usize,
    /// Letters that were there already.
    pub known: usize,
    /// Ids of the new ones.
    pub ids: Vec<i64>,
}
