//! What a run found, as it is kept from run to run: conditions and named figures. Pure: no files, no clock, no servers;
//! `tests/it/benchmark.rs` tests it.

pub mod comparison;
mod figure;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use figure::{Better, Figure};

/// The result of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Machine, servers, settings: figures of other conditions prove nothing.
    pub conditions: BTreeMap<String, String>,
    /// By section and name.
    pub figures: BTreeMap<String, Figure>,
}

impl Results {
    /// These, and of `earlier` ones what was not measured now, if it was measured under the same conditions.
    pub fn completed_by(mut self, earlier: Results) -> Results {
        if self.conditions == earlier.conditions {
            for (name, figure) in earlier.figures {
                self.figures.entry(name).or_insert(figure);
            }
        }
        self
    }
}
