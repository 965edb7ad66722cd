//! What a query needs of the manager: its statement judged, and the engine that runs it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::engines::{Engine, EngineKind, Select, Trouble};
use crate::fault::Fault;

/// A statement that may be run.
pub struct Prepared {
    /// Who runs it.
    pub engine: Arc<dyn Engine>,
    /// What is run.
    pub select: Select,
    /// What the engine says of it, with the place in its author's text.
    pub placed: Box<dyn Fn(Trouble) -> Trouble + Send + Sync>,
}

/// Judges statements.
#[async_trait]
pub trait Statements: Send + Sync {
    /// A statement of somebody who looks, judged by the gate; `pull` asks for what is there now. On the default engine if none
    /// is named.
    async fn prepared(&self, engine: Option<EngineKind>, sql: &str, pull: bool) -> Result<Prepared, Fault>;

    /// How many streams are deployed: of this owner, and in all.
    async fn deployed(&self, owner: &str) -> Result<(usize, usize), Fault>;
}
