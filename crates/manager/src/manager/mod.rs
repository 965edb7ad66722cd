//! The manager as the service and the command line know it. Calls of people write down what is wanted and come back; who
//! leads ([`Manager::run`]) sees to it that the engines do it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::consumers::{GOOD_FOR, MOST_GROUPS, Readers};
pub use self::words::*;
use crate::catalog::Source;
pub use crate::catalog::{Declaration, Declarer, ExpectedSource};
use crate::definition::{Definition, Event, Revision};
use crate::engines::{Engine, EngineKind, ObservedState, Topology};
use crate::fault::Fault;
use crate::lifecycle::{Action, Plan};
use crate::ports::{Kafka, Schemas};
use crate::settings::ManagerSettings;
use crate::store::{Pool, Store};

mod catalogue;
mod consumers;
mod inferred;
mod judge;
mod live;
mod looks;
mod orphans;
mod waits;
mod wishes;
mod words;

/// What a manager is made of.
pub struct Parts {
    /// What can be set.
    pub settings: ManagerSettings,
    /// Connections that may write. Who leads takes one of them for good.
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
    shared: Arc<Shared>,
}

/// What calls of people and the reconciler have in common.
pub(crate) struct Shared {
    pub parts: Parts,
    pub store: Store,
    /// Somebody in this process wants something: raised each time.
    pub wishes: watch::Sender<u64>,
    catalogue: catalogue::Cache,
    consumers: consumers::Cache,
    waits: waits::Waits,
}

impl Shared {
    /// The engine of that kind, if it is configured.
    pub fn engine(&self, kind: EngineKind) -> Result<&Arc<dyn Engine>, Fault> {
        let found = self.parts.engines.iter().find(|engine| engine.kind() == kind);
        found.ok_or(Fault::EngineNotConfigured { engine: kind })
    }

    /// Tells whoever leads in this process that somebody wants something.
    pub fn wake(&self) {
        self.wishes.send_modify(|wishes| *wishes += 1);
    }

    pub fn crash(&self, point: &'static str) {
        (self.parts.crash)(point);
    }
}

impl Manager {
    /// A manager of these parts. Does nothing by itself until it is [run](Manager::run).
    pub fn new(parts: Parts) -> Manager {
        let store = Store::new(parts.pool.clone());
        let (catalogue, consumers) = (catalogue::Cache::default(), consumers::Cache::default());
        let waits = waits::Waits::default();
        let shared = Shared { parts, store, wishes: watch::Sender::new(0), catalogue, consumers, waits };
        Manager { shared: Arc::new(shared) }
    }

    /// What it was told.
    pub fn settings(&self) -> &ManagerSettings {
        &self.shared.parts.settings
    }

    /// The engine of that kind, if it is configured.
    pub fn engine(&self, kind: EngineKind) -> Result<&Arc<dyn Engine>, Fault> {
        self.shared.engine(kind)
    }

    /// Leads or waits to lead, until `stop`: compares what is wanted with what is, and takes the next step. Any number of
    /// instances may run; one leads, by a lock in Postgres. Comes back only when stopped; troubles are logged and overcome.
    pub async fn run(&self, stop: CancellationToken) {
        crate::reconcile::run(Arc::clone(&self.shared), stop).await;
    }

    /// Writes a definition down. The gate judges its text; nothing is deployed.
    pub async fn create(&self, new: NewDefinition, actor: &str) -> Result<Definition, Fault> {
        self.shared.create(new, actor).await
    }

    /// Definitions, the latest made first; those after the page that ended with [`Page::next`].
    pub async fn list(&self, filter: &Filter, after: Option<&str>, limit: u32) -> Result<Page, Fault> {
        self.shared.list(filter, after, limit).await
    }

    /// A definition. The id may have hyphens.
    pub async fn get(&self, id: &str) -> Result<Definition, Fault> {
        Ok(self.shared.record(id).await?.into())
    }

    /// Changes a definition. A new text is judged by the gate, and by the engine if the definition is wanted to run; then it
    /// takes the old one's place, with its state ([`Fault::WouldLoseState`] if that cannot be).
    pub async fn update(&self, id: &str, change: Change, actor: &str) -> Result<Definition, Fault> {
        self.shared.update(id, change, actor).await
    }

    /// Wants it gone: what runs is ended, the engine's objects are removed, and the topic if that is said. Waits for that no
    /// longer than `patience`.
    pub async fn delete(
        &self,
        id: &str,
        options: DeleteOptions,
        patience: Duration,
        actor: &str,
    ) -> Result<Deletion, Fault> {
        self.shared.delete(id, options, patience, actor).await
    }

    /// Wants it to run; no harm if it does. Waits until the engine has taken it, no longer than `patience`; a refusal is a
    /// [`Fault::Refused`]. Whether it runs well is seen afterwards.
    pub async fn deploy(
        &self,
        id: &str,
        options: DeployOptions,
        patience: Duration,
        actor: &str,
    ) -> Result<Definition, Fault> {
        self.shared.deploy(id, Action::Deploy, options, patience, actor).await
    }

    /// Wants it not to run. Its topic stays; so does its state where the engine can keep it. Waits until the engine has done
    /// it, no longer than `patience`.
    pub async fn stop(
        &self,
        id: &str,
        options: StopOptions,
        patience: Duration,
        actor: &str,
    ) -> Result<Definition, Fault> {
        self.shared.rest(id, Action::Stop, options, patience, actor).await
    }

    /// Wants it to keep its state and do nothing, if it has the version that is expected. Waits as [`Manager::stop`].
    pub async fn pause(
        &self,
        id: &str,
        expected_version: Option<i32>,
        patience: Duration,
        actor: &str,
    ) -> Result<Definition, Fault> {
        let options = StopOptions { expected_version, ..StopOptions::default() };
        self.shared.rest(id, Action::Pause, options, patience, actor).await
    }

    /// Wants it to go on, if it has the version that is expected. Waits as [`Manager::deploy`].
    pub async fn resume(
        &self,
        id: &str,
        expected_version: Option<i32>,
        patience: Duration,
        actor: &str,
    ) -> Result<Definition, Fault> {
        let options = DeployOptions { expected_version, ..DeployOptions::default() };
        self.shared.deploy(id, Action::Resume, options, patience, actor).await
    }

    /// What would happen if this text, or that of the definition, were deployed now. Changes nothing.
    pub async fn plan(&self, id: &str, sql_script: Option<&str>) -> Result<Plan, Fault> {
        self.shared.plan(id, sql_script).await
    }

    /// Judges a statement, by the gate and then by the engine; by the gate alone if the engine is away.
    pub async fn validate(
        &self,
        engine: Option<EngineKind>,
        kind: StatementKind,
        sql: &str,
    ) -> Result<Validation, Fault> {
        self.shared.validate(engine, kind, sql).await
    }

    /// The texts that it had, the latest first, at most `limit`; those before the revision `before`. The latest 500 are kept, and
    /// older ones that are deployed, gone back to or failed.
    pub async fn revisions(&self, id: &str, before: Option<i32>, limit: u32) -> Result<Vec<Revision>, Fault> {
        let id = self.shared.record(id).await?.id;
        Ok(self.shared.store.texts(&id, before, None, i64::from(limit)).await?)
    }

    /// Those of these texts that it has, the latest first.
    pub async fn these_revisions(&self, id: &str, these: [i32; 2]) -> Result<Vec<Revision>, Fault> {
        let id = self.shared.record(id).await?.id;
        Ok(self.shared.store.texts(&id, None, Some(&these), 2).await?)
    }

    /// How it is doing, by what is stored and by what its engine says now.
    pub async fn status(&self, id: &str) -> Result<Status, Fault> {
        self.shared.status(id).await
    }

    /// Who reads what it writes, as the brokers told in the last [`GOOD_FOR`].
    pub async fn consumers(&self, id: &str) -> Result<Readers, Fault> {
        self.shared.consumers(id).await
    }

    /// What happened to it, the latest first; those before the one with the id `before`.
    pub async fn events(&self, id: &str, before: Option<i64>, limit: u32) -> Result<Vec<Event>, Fault> {
        let id = self.shared.record(id).await?.id;
        Ok(self.shared.store.events(&id, before, i64::from(limit)).await?)
    }

    /// Its operators and what flows between them; empty if nothing runs.
    pub async fn topology(&self, id: &str) -> Result<Topology, Fault> {
        self.shared.topology(id).await
    }

    /// The configured engines, each asked just now.
    pub async fn engines(&self) -> Vec<EngineStatus> {
        self.shared.engines().await
    }

    /// What can be selected from, of all engines or of one.
    pub async fn catalog(&self, engine: Option<EngineKind>) -> Result<Catalog, Fault> {
        self.shared.catalog(engine).await
    }

    /// What people have declared under a name, in upper or lower case.
    pub async fn declaration(&self, name: &str) -> Result<Declaration, Fault> {
        self.shared.declaration(name).await
    }

    /// Declares a source, or declares it anew: one's own, or as an operator; [`Fault::SourceChanged`] if it is not as expected.
    pub async fn put_source(
        &self,
        source: Source,
        by: Declarer<'_>,
        expected: ExpectedSource,
    ) -> Result<Declaration, Fault> {
        self.shared.put_source(source, by, expected).await
    }

    /// Takes a declaration back: one's own, or as an operator. What runs is not touched. Says what stays, as sentences.
    pub async fn delete_source(
        &self,
        name: &str,
        by: Declarer<'_>,
        expected: ExpectedSource,
    ) -> Result<Vec<String>, Fault> {
        self.shared.delete_source(name, by, expected).await
    }

    /// What looks like ours in engines and brokers, and that no definition names.
    pub async fn orphans(&self) -> Result<Orphans, Fault> {
        self.shared.orphans().await
    }

    /// Removes an orphan because somebody says so; looks once more whether it is one.
    pub async fn remove_orphan(
        &self,
        kind: OrphanKind,
        engine: Option<EngineKind>,
        id: &str,
        actor: &str,
    ) -> Result<Orphan, Fault> {
        self.shared.remove_orphan(kind, engine, id, actor).await
    }

    /// How many definitions are seen in each state; states of none are left out.
    pub async fn by_state(&self) -> Result<Vec<(ObservedState, u64)>, Fault> {
        Ok(self.shared.store.by_state().await?)
    }

    /// How many streams are deployed: of this principal, and of all. What [`crate::settings::Limits`] count.
    pub async fn deployed(&self, owner: &str) -> Result<(usize, usize), Fault> {
        Ok(self.shared.store.deployed(owner).await?)
    }
}
