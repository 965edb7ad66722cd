//! The repair desk: shows what is held and what was refused, and makes decisions about it. Used by the API and by the
//! command line alike. It never folds: the projector follows the decisions (`projector/`), now or when it is back; to mend a
//! key it has [`crate::builds::mend`] fold it. It gives plain values: what these look like as an answer, and where its links
//! lead, is the business of who asked.
//!
//! A decision locks the view's progress rows first and reads afterwards, so it is made against what is committed, and a
//! batch that was folded before it is folded again.

mod bulk;
pub mod check;
pub mod decide;
mod facts;
pub mod import;
pub mod mend;
pub mod model;
pub mod once;
pub mod operations;
pub mod pause;
pub mod policy;
mod records;
pub mod request;
mod rows;
pub mod rules;
pub mod show;
pub mod skip_to;
pub mod source;

use std::sync::{Arc, PoisonError, RwLock};

use crate::builds::mend::Mender;
use crate::config::{Config, Environment, GapPolicy, ViewRules};
use crate::domain::pause::ViewPause;
use crate::domain::preflight::Outlook;
use crate::repair::check::Checker;
use crate::store::pool::WriterPool;
use crate::store::read::{ReadError, ReadPool, SequencesOf};

pub use self::rows::write::ImportedLetter;

/// The desk of one view. Its clones are the same desk: they go by the same rules.
#[derive(Clone)]
pub struct Desk {
    /// Registry name of the view.
    pub view: &'static str,
    /// What is done about proven gaps.
    pub gap_policy: GapPolicy,
    /// Bytes of a record's key and value at most.
    pub max_record_bytes: usize,
    /// What is at stake here.
    pub environment: Environment,
    pool: ReadPool,
    writers: WriterPool,
    bench: Arc<RwLock<Arc<Bench>>>,
    mender: Mender,
    sequences: Option<SequencesOf>,
}

/// What depends on the build that readers read.
struct Bench {
    rules: ViewRules,
    checker: Checker,
}

impl Desk {
    /// The desk of a view: what reads its records, what mends its keys, and how to see how far these are, if it tells.
    pub fn new(
        view: &'static str,
        (config, gap_policy, rules): (&Config, GapPolicy, &ViewRules),
        (checker, mender, sequences): (Checker, Mender, Option<SequencesOf>),
        (pool, writers): (ReadPool, WriterPool),
    ) -> Self {
        Desk {
            view,
            gap_policy,
            max_record_bytes: config.projector.max_record_bytes,
            environment: config.environment,
            pool,
            writers,
            bench: Arc::new(RwLock::new(Arc::new(Bench { rules: rules.clone(), checker }))),
            mender,
            sequences,
        }
    }

    /// What decisions are written by, whatever they are about.
    pub fn writers(&self) -> WriterPool {
        self.writers.clone()
    }

    /// The rules of the build that readers read.
    pub fn rules(&self) -> ViewRules {
        self.bench().rules.clone()
    }

    /// From now on readers read a build that goes by these rules, whose records `checker` reads.
    pub fn go_by(&self, rules: ViewRules, checker: Checker) {
        *self.bench.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Bench { rules, checker });
    }

    fn bench(&self) -> Arc<Bench> {
        Arc::clone(&self.bench.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why the desk refuses what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// There is a decision about it.
    AlreadyDecided,
    /// The key has consumed that number.
    AlreadyConsumed,
    /// The event with that number is there.
    NumberIsParked,
    /// The key may not come to that number.
    OutOfReach,
    /// Another number of keys or letters matches than the caller expects.
    CountChanged,
    /// The record cannot be read as an event of that key and number.
    ContractViolated,
    /// The idempotency key was used for another request.
    IdempotencyKeyReused,
    /// The key is not held.
    NotHeld,
    /// There is no such letter.
    NoSuchLetter,
    /// The schema registry does not answer, so a framed record cannot be read.
    RegistryAway,
    /// A part of the request does not fit the letter or key.
    Unfit,
    /// Another operation of the view is under way.
    OperationRunning,
    /// There is no such operation.
    NoSuchOperation,
    /// The operation is over.
    OperationOver,
    /// The operation is in another phase.
    WrongPhase,
    /// No build is kept to go back to.
    NothingKept,
    /// Views are not cleared in place in this environment.
    ModeNotAllowed,
    /// An operator has the view stand still.
    ViewPaused,
    /// The log does not hold all that the present build was made from.
    HistoryTruncated,
    /// The broker removes records of the topic that later ones replace.
    TopicCompacted,
    /// The view is configured to be made from another topic or cluster.
    SourceChanged,
    /// It is not the log any more that the present build was made from.
    LogIdentityChanged,
    /// There is nothing of the key.
    NoSuchKey,
    /// It cannot be told what the rows of the key should be.
    NotMendable,
    /// The log cannot be read.
    LogAway,
}

impl Obstacle {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Obstacle::AlreadyDecided => "already_decided",
            Obstacle::AlreadyConsumed => "already_consumed",
            Obstacle::NumberIsParked => "number_is_parked",
            Obstacle::OutOfReach => "out_of_reach",
            Obstacle::CountChanged => "count_changed",
            Obstacle::ContractViolated => "contract_violated",
            Obstacle::IdempotencyKeyReused => "idempotency_key_reused",
            Obstacle::NotHeld => "held_key_not_found",
            Obstacle::NoSuchLetter => "dead_letter_not_found",
            Obstacle::RegistryAway => "schema_registry_unavailable",
            Obstacle::Unfit => "invalid_body",
            Obstacle::OperationRunning => "operation_running",
            Obstacle::NoSuchOperation => "operation_not_found",
            Obstacle::OperationOver => "operation_over",
            Obstacle::WrongPhase => "wrong_phase",
            Obstacle::NothingKept => "nothing_kept",
            Obstacle::ModeNotAllowed => "mode_not_allowed",
            Obstacle::ViewPaused => "view_paused",
            Obstacle::HistoryTruncated => "history_truncated",
            Obstacle::TopicCompacted => "topic_compacted",
            Obstacle::SourceChanged => "source_changed",
            Obstacle::LogIdentityChanged => "log_identity_changed",
            Obstacle::NoSuchKey => "key_not_found",
            Obstacle::NotMendable => "not_mendable",
            Obstacle::LogAway => "log_unavailable",
        }
    }
}

/// What the desk refuses, in words.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The kind.
    pub obstacle: Obstacle,
    /// What was seen, and what to do.
    pub detail: String,
    /// What a caller can go on by.
    pub seen: Seen,
}

/// What was seen that stands in the way, for callers that go on by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing but what the words say.
    Nothing,
    /// The decision that there is.
    Decision(i64),
    /// The last number that the key has consumed.
    LastSequence(i64),
    /// The number that is parked.
    ParkedSequence(i64),
    /// How far can be decided about.
    Reach {
        /// The number that the key waits for.
        waits_for: i64,
        /// The greatest number that can be decided about.
        reach: i64,
    },
    /// How many match.
    Matched(usize),
    /// The operation that there is.
    Operation(i64),
    /// That the view is paused.
    Pause(ViewPause),
    /// What speaks against a rebuild.
    Outlook(Outlook),
    /// A stable name for why.
    Reason(&'static str),
    /// Why the record cannot be read.
    Unreadable {
        /// The stable name.
        reason: &'static str,
        /// The field, the value and what is expected, if it is that.
        violation: Option<String>,
    },
}

impl Refusal {
    /// A refusal.
    pub fn new(obstacle: Obstacle, detail: impl Into<String>) -> Self {
        Refusal { obstacle, detail: detail.into(), seen: Seen::Nothing }
    }

    /// Adds what was seen.
    pub fn because(self, seen: Seen) -> Self {
        Refusal { seen, ..self }
    }
}

/// Why the desk gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// What was asked cannot be done.
    #[error("{}: {}", .0.obstacle.as_str(), .0.detail)]
    Refused(Box<Refusal>),
    /// Postgres did not answer.
    #[error(transparent)]
    Database(#[from] ReadError),
}

impl From<Refusal> for DeskError {
    fn from(refusal: Refusal) -> Self {
        DeskError::Refused(Box::new(refusal))
    }
}

impl From<crate::store::DbError> for DeskError {
    fn from(error: crate::store::DbError) -> Self {
        DeskError::Database(error.into())
    }
}
