//! A query of somebody who looks, as it is seen, listed and told of.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::engines::{EngineKind, LeftOut, TableSeen};

/// So often an instance tells of what runs in it; what it did not tell of for three times as long is gone.
pub const TELL_EVERY: Duration = Duration::from_secs(10);

/// A query that runs, as whoever asks sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryInfo {
    /// Its id: 32 hex digits.
    pub id: String,
    /// The instance that began it: it is read and ended there.
    pub instance: String,
    /// Where it runs.
    pub engine: EngineKind,
    /// Who runs it.
    pub owner: String,
    /// Its text, as it was sent.
    pub sql_script: String,
    /// Since when.
    pub started_at: Timestamp,
    /// When it is ended at the latest.
    pub ends_at: Timestamp,
    /// Whether somebody reads it.
    pub is_read: bool,
    /// Rows so far.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What is not in them, where its engine says so.
    pub left_out: LeftOut,
    /// The tables that it reads, likewise.
    pub tables: Vec<TableSeen>,
}

/// How many queries run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Active {
    /// Of one owner.
    pub of_owner: usize,
    /// In all.
    pub in_all: usize,
}
