//! The manager as the service and the command line know it. Calls of people write down what is wanted and come back; who
//! leads ([`Manager::run`]) sees to it that the engines do it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::catalog::Source;
use crate::definition::{Definition, Event, Intent, Revision};
use crate::engines::{Capabilities, Engine, EngineKind, Explained, ObservedState, Refusal, RestorePoint, Topology};
use crate::fault::Fault;
use crate::lifecycle::Plan;
use crate::ports::{Kafka, Schemas};
use crate::settings::ManagerSettings;
use crate::store::Pool;

/// What a manager is made of.
pub struct Parts {
    /// What can be set.
    pub settings: ManagerSettings,
    /// Connections that may write; one of them is held by who leads.
    pub pool: Pool,
    /// The brokers.
    pub kafka: Arc<dyn Kafka>,
    /// The schema registry, if there is one.
    pub schemas: Option<Arc<dyn Schemas>>,
    /// The configured engines, each kind at most once.
    pub engines: Vec<Arc<dyn Engine>>,
    /// Named points at which a test can end the process.
    pub crash: fn(&'static str),
}

/// The manager. Clones are the same one.
#[derive(Clone)]
pub struct Manager {
    parts: Arc<Parts>,
}

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
}

/// How something is deployed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeployOptions {
    /// Begin anew where the state cannot be kept.
    pub accept_state_loss: bool,
    /// Begin anew even if it could.
    pub from_beginning: bool,
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
}

/// What is to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatementKind {
    /// A query of somebody who looks.
    Adhoc,
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

impl Manager {
    /// A manager of these parts. Does nothing by itself until it is [run](Manager::run).
    pub fn new(parts: Parts) -> Manager {
        Manager { parts: Arc::new(parts) }
    }

    /// What it was told.
    pub fn settings(&self) -> &ManagerSettings {
        &self.parts.settings
    }

    /// The engine of that kind, if it is configured.
    pub fn engine(&self, kind: EngineKind) -> Result<&Arc<dyn Engine>, Fault> {
        let found = self.parts.engines.iter().find(|engine| engine.kind() == kind);
        found.ok_or(Fault::EngineNotConfigured { engine: kind })
    }

    /// Writes a definition down. The gate judges its text; nothing is deployed.
    pub async fn create(&self, new: NewDefinition, actor: &str) -> Result<Definition, Fault> {
        let _ = (new, actor);
        todo!()
    }

    /// Definitions, the latest made first; those after the one with the id `after`.
    pub async fn list(&self, filter: &Filter, after: Option<&str>, limit: u32) -> Result<Page, Fault> {
        let _ = (filter, after, limit);
        todo!()
    }

    /// A definition. The id may have hyphens.
    pub async fn get(&self, id: &str) -> Result<Definition, Fault> {
        let _ = id;
        todo!()
    }

    /// Changes a definition. A new text is judged by the gate, and by the engine if the definition is wanted to run; then it
    /// takes the old one's place, with its state ([`Fault::WouldLoseState`] if that cannot be).
    pub async fn update(&self, id: &str, change: Change, actor: &str) -> Result<Definition, Fault> {
        let _ = (id, change, actor);
        todo!()
    }

    /// Wants it gone: what runs is ended, the engine's objects are removed, and the topic if `delete_topic`. Waits for that no
    /// longer than `patience`.
    pub async fn delete(
        &self,
        id: &str,
        delete_topic: bool,
        patience: Duration,
        actor: &str,
    ) -> Result<Deletion, Fault> {
        let _ = (id, delete_topic, patience, actor);
        todo!()
    }

    /// Wants it to run; no harm if it does. Waits until it is [settled](Definition::is_settled) or has failed, no longer than
    /// `patience`.
    pub async fn deploy(
        &self,
        id: &str,
        options: DeployOptions,
        patience: Duration,
        actor: &str,
    ) -> Result<Definition, Fault> {
        let _ = (id, options, patience, actor);
        todo!()
    }

    /// Wants it not to run. Its topic stays; so does its state where the engine can keep it. Waits as [`Manager::deploy`].
    pub async fn stop(
        &self,
        id: &str,
        options: StopOptions,
        patience: Duration,
        actor: &str,
    ) -> Result<Definition, Fault> {
        let _ = (id, options, patience, actor);
        todo!()
    }

    /// Wants it to keep its state and do nothing. Waits as [`Manager::deploy`].
    pub async fn pause(&self, id: &str, patience: Duration, actor: &str) -> Result<Definition, Fault> {
        let _ = (id, patience, actor);
        todo!()
    }

    /// Wants it to go on. Waits as [`Manager::deploy`].
    pub async fn resume(&self, id: &str, patience: Duration, actor: &str) -> Result<Definition, Fault> {
        let _ = (id, patience, actor);
        todo!()
    }

    /// What would happen if this text, or that of the definition, were deployed now. Changes nothing.
    pub async fn plan(&self, id: &str, sql_script: Option<&str>) -> Result<Plan, Fault> {
        let _ = (id, sql_script);
        todo!()
    }

    /// Judges a statement, by the gate and then by the engine; by the gate alone if the engine is away.
    pub async fn validate(
        &self,
        engine: Option<EngineKind>,
        kind: StatementKind,
        sql: &str,
    ) -> Result<Validation, Fault> {
        let _ = (engine, kind, sql);
        todo!()
    }

    /// Every text that it had, the latest first.
    pub async fn revisions(&self, id: &str) -> Result<Vec<Revision>, Fault> {
        let _ = id;
        todo!()
    }

    /// How it is doing, by what is stored and by what its engine says now.
    pub async fn status(&self, id: &str) -> Result<Status, Fault> {
        let _ = id;
        todo!()
    }

    /// What happened to it, the latest first; those before the one with the id `before`.
    pub async fn events(&self, id: &str, before: Option<i64>, limit: u32) -> Result<Vec<Event>, Fault> {
        let _ = (id, before, limit);
        todo!()
    }

    /// Its operators and what flows between them; empty if nothing runs.
    pub async fn topology(&self, id: &str) -> Result<Topology, Fault> {
        let _ = id;
        todo!()
    }

    /// The configured engines, each asked just now.
    pub async fn engines(&self) -> Vec<EngineStatus> {
        todo!()
    }

    /// What can be selected from, of all engines or of one.
    pub async fn catalog(&self, engine: Option<EngineKind>) -> Result<Catalog, Fault> {
        let _ = engine;
        todo!()
    }

    /// Declares a source, or declares it anew.
    pub async fn put_source(&self, source: Source, actor: &str) -> Result<Source, Fault> {
        let _ = (source, actor);
        todo!()
    }

    /// Takes a declaration back. What runs is not touched.
    pub async fn delete_source(&self, name: &str, actor: &str) -> Result<(), Fault> {
        let _ = (name, actor);
        todo!()
    }

    /// What looks like ours in engines and brokers, and that no definition names.
    pub async fn orphans(&self) -> Result<Orphans, Fault> {
        todo!()
    }

    /// Removes an orphan because somebody says so; looks once more whether it is one.
    pub async fn remove_orphan(
        &self,
        kind: OrphanKind,
        engine: Option<EngineKind>,
        id: &str,
        actor: &str,
    ) -> Result<Orphan, Fault> {
        let _ = (kind, engine, id, actor);
        todo!()
    }

    /// How many streams are deployed: of this principal, and of all. What [`crate::settings::Limits`] count.
    pub async fn deployed(&self, owner: &str) -> Result<(usize, usize), Fault> {
        let _ = owner;
        todo!()
    }

    /// Leads or waits to lead, until `stop`: compares what is wanted with what is, and takes the next step. Any number of
    /// instances may run; one leads, by a lock in Postgres. Comes back only when stopped; troubles are logged and overcome.
    pub async fn run(&self, stop: CancellationToken) {
        let _ = stop;
        todo!()
    }
}
