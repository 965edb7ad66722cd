//! What a view keeps of the events that it has consumed.

use serde::{Deserialize, Serialize};

/// What is kept of each consumed event beside its effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// A row of the ledger with the event's payload.
    #[default]
    Payload,
    /// A row of the ledger without it.
    Compact,
    /// Nothing. An event id that comes again under a later number is then recognised only if it is the key's latest.
    Off,
}
