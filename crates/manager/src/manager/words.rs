//! What is asked of the manager, and what it answers.

use serde::Serialize;

use crate::catalog::Source;
use crate::definition::{Definition, Event, Intent};
use crate::engines::{Capabilities, EngineKind, Explained, ObservedState, Refusal, RestorePoint};

/// A new definition.
#[derive(Debug, Clone)]
pub struct NewDefinition {
    /// What people will call it.
    pub name: String,
    /// One SELECT.
    pub sql_script: String,
    /// Which engine; the default one if it says nothing.
    pub engine: Option<EngineKind>,
}

/// What is to change. What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// A new name; topic and stream keep theirs.
    pub name: Option<String>,
    /// A new text. If the definition is wanted to run, it takes the place of the old one.
    pub sql_script: Option<String>,
    /// The version that the caller has read (`If-Match`).
    pub expected_version: Option<i32>,
    /// Do it even if that loses the state.
    pub accept_state_loss: bool,
}

/// Which definitions.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of that engine.
    pub engine: Option<EngineKind>,
    /// Of that owner.
    pub owner: Option<String>,
    /// Wanted so.
    pub intent: Option<Intent>,
    /// Seen so.
    pub observed: Option<ObservedState>,
    /// With this in their name, without case.
    pub name_contains: Option<String>,
}

/// A page of definitions, the latest made first.
#[derive(Debug, Clone)]
pub struct Page {
    /// The definitions.
    pub definitions: Vec<Definition>,
    /// Where the next page begins: the last one's id. `None`: this is the last.
    pub next: Option<String>,
}

/// How something is stopped by somebody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Throw the state away: a later deployment begins anew. Flink writes out open windows first.
    pub discard_state: bool,
    /// The version that the caller has read (`If-Match`).
    pub expected_version: Option<i32>,
}

/// How something is deployed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeployOptions {
    /// Begin anew where the state cannot be kept.
    pub accept_state_loss: bool,
    /// Begin anew even if it could.
    pub from_beginning: bool,
    /// The version that the caller has read (`If-Match`).
    pub expected_version: Option<i32>,
}

/// How something is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Its topic, too, with all records, and those beside it.
    pub delete_topic: bool,
    /// The version that the caller has read (`If-Match`).
    pub expected_version: Option<i32>,
}

/// What a deletion leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// Whether it is gone by now; else it goes as soon as its engine lets it.
    pub is_done: bool,
    /// What stays, as sentences: `topic \`view_orders_0123abcd\` with its records`.
    pub leaves: Vec<String>,
}

/// How a definition is doing.
#[derive(Debug, Clone)]
pub struct Status {
    /// As stored, with what was seen last.
    pub definition: Definition,
    /// Whether the engine could be asked just now; if not, why.
    pub engine_trouble: Option<String>,
    /// Records of its sources that it has not read yet, where that is known.
    pub lag: Option<u64>,
    /// Records written per second, where the engine counts.
    pub records_per_second: Option<u64>,
    /// First cause of the last failure, one line.
    pub failure: Option<String>,
    /// Where its state was kept last, by the engine's own account.
    pub latest_checkpoint: Option<RestorePoint>,
    /// What happened last, the latest first; at most 20.
    pub events: Vec<Event>,
}

/// A configured engine.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineStatus {
    /// Which.
    pub engine: EngineKind,
    /// Whether it runs definitions that name none.
    pub is_default: bool,
    /// Whether it answered just now.
    pub is_reachable: bool,
    /// What it is and can, if it answered.
    pub capabilities: Option<Capabilities>,
    /// Why not, if it did not.
    pub trouble: Option<String>,
}

/// What can be selected from.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Catalog {
    /// The sources, by name.
    pub sources: Vec<CatalogEntry>,
    /// What could not be asked, as sentences: the list may lack what that knows.
    pub missing: Vec<String>,
}

/// A source, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogEntry {
    /// The source.
    #[serde(flatten)]
    pub source: Source,
    /// Who says so.
    pub origin: Origin,
    /// Engines that can select from it.
    pub engines: Vec<EngineKind>,
}

/// Who says that a source is there. The earlier one wins where two say different things of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// People, by declaring it.
    Declared,
    /// An engine that knows sources itself.
    Engine(EngineKind),
    /// The schema registry, by the topic's `-value` subject.
    Registry,
    /// Nobody: its latest records look so.
    Inferred,
    /// This service: it is one of its views. Whatever else has that name was there before.
    View,
}

/// What is to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatementKind {
    /// A query of somebody who looks.
    Adhoc,
    /// Likewise, for what is there now instead of for changes (ksqlDB).
    Pull,
    /// A definition's text.
    Persistent,
}

/// What a check found.
#[derive(Debug, Clone)]
pub struct Validation {
    /// What is wrong; nothing if it is valid.
    pub errors: Vec<Refusal>,
    /// The statement as it would be sent, if the gate let it through.
    pub normalized: Option<String>,
    /// What it gives, if the engine was asked.
    pub explained: Option<Explained>,
    /// Who has judged.
    pub checked_by: CheckedBy,
    /// Why the engine has not, if it has not.
    pub engine_trouble: Option<String>,
}

/// Who has judged a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckedBy {
    /// The gate alone: the engine is away, or the gate has refused already.
    Gate,
    /// The gate, then the engine.
    Engine,
}

/// Something that looks like ours, and that no definition names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// What it is.
    pub kind: OrphanKind,
    /// Where, if it is in an engine.
    pub engine: Option<EngineKind>,
    /// Job id, query id or topic.
    pub id: String,
    /// The job's name, the stream or the topic.
    pub name: String,
    /// What it does, if it is in an engine.
    pub state: Option<ObservedState>,
    /// What is known of it, as a sentence.
    pub note: String,
}

/// What an orphan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrphanKind {
    /// A job of Flink or a query of ksqlDB.
    Job,
    /// A topic.
    Topic,
}

/// Orphans, as far as could be seen.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphans {
    /// They.
    pub orphans: Vec<Orphan>,
    /// What could not be asked, as sentences.
    pub missing: Vec<String>,
}
