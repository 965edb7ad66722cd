//! What can be set. The service reads it from its own settings and says here what it found.

use std::time::Duration;

use crate::plan::{Bounds, Limits};
use crate::table::TableBounds;
use crate::trial::Trial;

/// Everything that the engine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Queries that run at once, deployed ones and those of people who look.
    pub queries: usize,
    /// What a query may ask for.
    pub limits: Limits,
    /// Bytes that a query of somebody who looks may hold.
    pub adhoc_memory_bytes: usize,
    /// Bytes that a deployed query may hold.
    pub persistent_memory_bytes: usize,
    /// How far in the future the time of a row may lie.
    pub max_ahead_ms: i64,
    /// How long nothing may come of a partition that was read to its end before it holds no window open any more.
    pub idle: Duration,
    /// How long rows wait for their commit.
    pub commit: Duration,
    /// What a table may hold that is joined.
    pub table: TableBounds,
    /// How long after a refresh of its tables a query meets what has become of them meanwhile.
    pub table_refresh: Duration,
    /// In which process a text is tried before it is judged in this one; none where nobody is bounded.
    pub trial: Option<Trial>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            queries: 8,
            limits: Limits::default(),
            adhoc_memory_bytes: 64 << 20,
            persistent_memory_bytes: 256 << 20,
            max_ahead_ms: 600_000,
            idle: Duration::from_secs(30),
            commit: Duration::from_millis(200),
            table: TableBounds::default(),
            table_refresh: Duration::from_secs(5),
            trial: None,
        }
    }
}

impl Settings {
    /// The bounds of a query with so much memory.
    pub(crate) fn bounds(&self, memory_bytes: usize) -> Bounds {
        Bounds { memory_bytes, max_ahead_ms: self.max_ahead_ms, ..Bounds::default() }
    }
}
