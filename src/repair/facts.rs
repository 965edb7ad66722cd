//! What is true of keys and letters when a decision about them is made.

use std::collections::HashMap;

use super::rows::write;
use super::rules::{Decided, KeyFacts, NotNow};
use super::{Desk, DeskError, Obstacle, Refusal, Seen};
use crate::domain::units::Sequence;
use crate::store::Connection;

/// Facts by key.
pub(super) type Facts = HashMap<String, KeyFacts>;

impl Desk {
    /// What is known of `keys`. Decisions read it under the lock, pages without.
    pub(super) async fn facts(&self, client: &Connection, keys: &[&str]) -> Result<Facts, DeskError> {
        let held = write::held(client, self.view, keys).await?;
        let mut decided = write::decided(client, self.view, keys).await?;
        let free: Vec<String> =
            keys.iter().filter(|key| !held.contains_key(**key)).map(|key| (*key).to_owned()).collect();
        let rows: HashMap<String, i64> = match self.sequences {
            Some(sequences) if !free.is_empty() => sequences(self.pool.clone(), free).await?.into_iter().collect(),
            _ => HashMap::new(),
        };
        let before_first = self.bench().rules.first_sequence.previous();
        let facts = keys.iter().map(|key| {
            let hold = held.get(*key);
            let last = match (hold, self.sequences) {
                (Some(hold), _) => Some(hold.missing_from.previous()),
                (None, Some(_)) => Some(rows.get(*key).map_or(before_first, |last| Sequence(*last))),
                (None, None) => None,
            };
            let decided = decided.remove(*key).unwrap_or_default();
            ((*key).to_owned(), KeyFacts { last, missing: hold.map(|hold| hold.missing), decided })
        });
        Ok(facts.collect())
    }
}

impl NotNow {
    /// The kind of refusal.
    pub fn obstacle(&self) -> Obstacle {
        match self {
            NotNow::AlreadyDecided(_) => Obstacle::AlreadyDecided,
            NotNow::AlreadyConsumed(_) => Obstacle::AlreadyConsumed,
            NotNow::NumberIsParked(_) => Obstacle::NumberIsParked,
            NotNow::OutOfReach { .. } | NotNow::Unknown => Obstacle::OutOfReach,
        }
    }

    /// The refusal, for a key.
    pub fn refusal(&self, key: &str) -> Refusal {
        let refusal = Refusal::new(self.obstacle(), self.detail(key));
        match self {
            NotNow::AlreadyDecided(decided) => refusal.because(Seen::Decision(decided.id)),
            NotNow::AlreadyConsumed(last) => refusal.because(Seen::LastSequence(last.0)),
            NotNow::NumberIsParked(parked) => refusal.because(Seen::ParkedSequence(parked.0)),
            NotNow::OutOfReach { waits_for, reach } => {
                refusal.because(Seen::Reach { waits_for: waits_for.0, reach: reach.0 })
            }
            NotNow::Unknown => refusal,
        }
    }

    /// What was seen.
    pub fn detail(&self, key: &str) -> String {
        match self {
            NotNow::AlreadyDecided(Decided { id, action, numbers, taken }) => {
                let state = if *taken { "the view has taken it" } else { "the view has not taken it yet" };
                format!("Decision {id} ({}) is about {numbers} of `{key}` already; {state}", action.as_str())
            }
            NotNow::AlreadyConsumed(last) => {
                format!("`{key}` has consumed its numbers up to {last}; only later ones can be decided about")
            }
            NotNow::NumberIsParked(parked) => {
                format!(
                    "The event with number {parked} of `{key}` is parked: it is there and will be applied in its turn"
                )
            }
            NotNow::OutOfReach { waits_for, reach } => format!(
                "`{key}` waits for number {waits_for} and can be decided about up to {reach}; \
                 what comes after that may still arrive"
            ),
            NotNow::Unknown => format!("`{key}` is not held, and its view does not tell how far it is"),
        }
    }
}
