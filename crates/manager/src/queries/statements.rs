//! What a query needs of the manager: its statement judged, and the engine that runs it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::catalog::Source;
use crate::engines::{Engine, EngineKind, Refusal, Select};
use crate::fault::Fault;
use crate::gate::{self, Dialect};
use crate::manager::Manager;

/// A statement that may be run.
pub struct Prepared {
    /// Who runs it.
    pub engine: Arc<dyn Engine>,
    /// What is run.
    pub select: Select,
}

/// Judges statements.
#[async_trait]
pub trait Statements: Send + Sync {
    /// A statement of somebody who looks, judged by the gate. On the default engine if none is named.
    async fn prepared(&self, engine: Option<EngineKind>, sql: &str) -> Result<Prepared, Fault>;

    /// How many streams are deployed: of this owner, and in all.
    async fn deployed(&self, owner: &str) -> Result<(usize, usize), Fault>;
}

#[async_trait]
impl Statements for Manager {
    async fn prepared(&self, engine: Option<EngineKind>, sql: &str) -> Result<Prepared, Fault> {
        let kind = engine.unwrap_or(self.settings().default_engine);
        let engine = Arc::clone(self.engine(kind)?);
        let sources: Vec<Source> =
            self.catalog(Some(kind)).await?.sources.into_iter().map(|entry| entry.source).collect();
        let gated =
            gate::check(sql, Dialect::of(kind), gate::Kind::AdHoc { pull: false }, &self.settings().limits, &sources);
        let gated = gated.map_err(|faults| Fault::Refused(faults.into_iter().map(Refusal::from).collect()))?;
        Ok(Prepared { engine, select: gated.select })
    }

    async fn deployed(&self, owner: &str) -> Result<(usize, usize), Fault> {
        Manager::deployed(self, owner).await
    }
}
