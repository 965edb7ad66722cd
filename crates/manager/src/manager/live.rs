//! What people who look need: their statements judged, and which topics they may watch.

use std::sync::Arc;

use async_trait::async_trait;

use super::judge::placed;
use super::{Manager, Parts};
use crate::engines::EngineKind;
use crate::fault::Fault;
use crate::gate::Kind;
use crate::preview::Watchable;
use crate::queries::{Prepared, Statements};

impl Manager {
    /// What it is made of.
    pub(crate) fn parts(&self) -> &Parts {
        &self.shared.parts
    }
}

#[async_trait]
impl Statements for Manager {
    async fn prepared(&self, engine: Option<EngineKind>, sql: &str, pull: bool) -> Result<Prepared, Fault> {
        let kind = engine.unwrap_or(self.settings().default_engine);
        let engine = Arc::clone(self.engine(kind)?);
        let judged = self.shared.gate(kind, Kind::AdHoc { pull }, sql).await?;
        let gated = judged.map_err(Fault::Refused)?;
        let select = gated.select.clone();
        Ok(Prepared { engine, select, placed: Box::new(move |trouble| placed(&gated, trouble)) })
    }

    async fn deployed(&self, owner: &str) -> Result<(usize, usize), Fault> {
        Manager::deployed(self, owner).await
    }
}

#[async_trait]
impl Watchable for Manager {
    async fn may_be_watched(&self, topic: &str) -> Result<bool, Fault> {
        let outputs = self.shared.store.known().await?;
        if outputs.iter().any(|known| known.topic == topic) {
            return Ok(true);
        }
        self.shared.is_source(topic).await
    }

    async fn output_of(&self, definition: &str) -> Result<Option<String>, Fault> {
        match self.get(definition).await {
            Ok(definition) => Ok(Some(definition.output_topic)),
            Err(Fault::NotFound { .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}
