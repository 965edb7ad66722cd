//! The repair desk: shows what is held and what was refused, and makes decisions about it. Used by the API and by the
//! command line alike. It never folds: the projector follows the decisions (`projector/`), now or when it is back.
//!
//! A decision locks the view's progress rows first and reads afterwards, so it is made against what is committed, and a
//! batch that was folded before it is folded again.

mod bulk;
pub mod check;
pub mod decide;
mod facts;
pub mod import;
pub mod model;
pub mod policy;
mod records;
pub mod request;
pub mod rules;
pub mod show;
pub mod skip_to;

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::{Config, GapPolicy, ViewRules};
use crate::registrations::Registration;
use crate::repair::check::Checker;
use crate::store::pool::WriterPool;
use crate::store::read::{ReadError, ReadPool};
use crate::telemetry::metrics::Metrics;

/// Reads the last sequence of each key that a view holds; keys without a row are left out.
pub type Lookup = fn(ReadPool, Vec<String>) -> BoxFuture<'static, Result<Vec<(String, i64)>, ReadError>>;

/// The desk of one view.
#[derive(Clone)]
pub struct Desk {
    /// Registry name of the view.
    pub view: &'static str,
    /// What is done about proven gaps.
    pub gap_policy: GapPolicy,
    /// Smallest sequence number.
    pub first_sequence: i64,
    /// Bytes of a record's key and value at most.
    pub max_record_bytes: usize,
    pool: ReadPool,
    writers: WriterPool,
    checker: Arc<Checker>,
    lookup: Option<Lookup>,
}

impl Desk {
    /// The desk of a registered view.
    pub fn new(
        view: &Registration,
        (config, rules): (&Config, &ViewRules),
        metrics: &Arc<Metrics>,
        (pool, writers): (ReadPool, WriterPool),
    ) -> Result<Self> {
        Ok(Desk {
            view: view.name,
            gap_policy: rules.gap_policy,
            first_sequence: rules.first_sequence,
            max_record_bytes: config.projector.max_record_bytes,
            pool,
            writers,
            checker: Arc::new(view.checker(config, rules, metrics)?),
            lookup: view.api.map(|api| api().sequences),
        })
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
}

impl Obstacle {
    /// The stable name: the code of the API's problem.
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
    /// More members of the answer.
    pub more: Map<String, Value>,
}

impl Refusal {
    /// A refusal.
    pub fn new(obstacle: Obstacle, detail: impl Into<String>) -> Self {
        Refusal { obstacle, detail: detail.into(), more: Map::new() }
    }

    /// Adds a member.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("members are plain data");
        self.more.insert(name.to_owned(), value);
        self
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
