//! What would happen if a text were deployed.

use serde::Serialize;

use crate::engines::{EngineKind, Refusal};

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Where.
    pub engine: EngineKind,
    /// The revision that runs or ran last, if one did.
    pub from_revision: Option<i32>,
    /// The revision that would run.
    pub to_revision: i32,
    /// What becomes of the state.
    pub effect: Effect,
    /// Why, as a sentence.
    pub reason: String,
    /// What the manager would do, one sentence each, in order.
    pub steps: Vec<String>,
    /// Why it is refused; empty if it is not.
    pub refused: Vec<Refusal>,
    /// Clauses that differ and on which the state depends: `FROM`, `GROUP BY` …
    pub differences: Vec<String>,
}

/// What becomes of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// It runs already as it is wanted.
    Nothing,
    /// It never ran: it begins with an empty state.
    Starts,
    /// It goes on where it is.
    KeepsState,
    /// All of it is lost: it begins again, and its topic gets rows a second time.
    RestartsFromBeginning,
    /// It cannot be done.
    Refused,
}
