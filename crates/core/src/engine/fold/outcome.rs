//! What a record became, and where that is counted. Pure.

use crate::domain::counters::Counters;
use crate::domain::poison::{Poison, Reason};

/// What becomes of a record that was next and was refused.
pub(super) fn refused_as(poison: &Poison) -> Outcome {
    match poison.reason {
        Reason::EventIdReused => Outcome::Conflict,
        _ => Outcome::DeadLettered,
    }
}

/// Which of the six a record became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Applied,
    Duplicate,
    Late,
    Conflict,
    Parked,
    DeadLettered,
    Blocked(String),
}

impl Outcome {
    pub(super) fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        match self {
            Outcome::Applied => &mut counters.applied,
            Outcome::Duplicate => &mut counters.duplicate,
            Outcome::Late => &mut counters.late,
            Outcome::Conflict => &mut counters.conflict,
            Outcome::Parked => &mut counters.parked,
            Outcome::DeadLettered | Outcome::Blocked(_) => &mut counters.dead_lettered,
        }
    }
}
