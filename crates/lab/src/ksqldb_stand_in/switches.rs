//! What can be made to go wrong, and what was asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The hard facts of the protocol, each off until it is switched on (`POST /stand-in/switches`).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// Answers 503 with this error code to everything: 50302 while starting, 50303 while stopping.
    pub away: Option<u32>,
    /// Refuses what holds these words.
    pub refuse: Vec<Refuse>,
    /// Writes statements to the command topic and does not run them: the answer is QUEUED. They run when it is switched off.
    pub hold: bool,
    /// Held statements end with this instead of running.
    pub held_fail: Option<String>,
    /// Does what holds these words, and hangs up without an answer. Once.
    pub lose_answer_of: Option<String>,
    /// Hangs up on what holds these words and does nothing. Once.
    pub lose_request_of: Option<String>,
    /// Does what holds these words, and answers so late (milliseconds).
    pub slow: Option<(String, u64)>,
    /// Rows leave in chunks of so many bytes, wherever they end.
    pub chunk_bytes: Option<usize>,
    /// A row stream's connection is cut after so many bytes.
    pub cut_after_bytes: Option<usize>,
    /// A row stream fails after so many rows.
    pub fail_after_rows: Option<u64>,
    /// A row stream ends after so many rows, in order and without a word.
    pub end_after_rows: Option<u64>,
    /// An empty line before each line.
    pub blank_lines: bool,
    /// Lines between the rows that no client knows.
    pub unknown_lines: bool,
    /// Most push queries at once; 0: 100.
    pub max_push_queries: usize,
    /// So late is a push query's place free after its connection is closed (milliseconds).
    pub slow_close: u64,
    /// Most persistent queries.
    pub max_persistent_queries: Option<usize>,
    /// A host does not answer.
    pub unresponsive: bool,
    /// Queries that have failed, each with why.
    pub failed: BTreeMap<String, String>,
    /// The command topic is damaged.
    pub degraded: bool,
    /// Overrides that are on the deny list.
    pub denied: Vec<String>,
}

/// A refusal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refuse {
    /// Words of the statement or path.
    pub words: String,
    /// How often; `None`: always.
    #[serde(default)]
    pub times: Option<u32>,
    /// HTTP status.
    pub status: u16,
    /// The body; null: none.
    #[serde(default)]
    pub body: Value,
    /// `Retry-After`.
    #[serde(default)]
    pub retry_after: Option<u32>,
}

/// One request (`GET /stand-in/asked`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// `POST /ksql`
    pub what: String,
    /// The statement, if it has one.
    pub statement: String,
    /// Its properties.
    pub properties: Value,
    /// Whether it had an `Authorization` header.
    pub authorized: bool,
    /// The port that the client spoke from: a connection of its own has one of its own.
    pub from: u16,
}
