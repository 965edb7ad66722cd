//! What people who look need: their statements judged, and which topics they may watch.

use std::sync::Arc;

use async_trait::async_trait;

use super::judge::placed;
use super::{Manager, Parts};
use crate::engines::{Changes, EngineKind};
use crate::fault::Fault;
use crate::gate::Kind;
use crate::preview::{Output, Watchable};
use crate::queries::{Active, Prepared, QueryInfo, Roll, Statements};

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
impl Roll for Manager {
    async fn enter(&self, query: &QueryInfo, others: Active) -> Result<Option<Active>, Fault> {
        Ok(self.shared.store.enter_query(query, others).await?)
    }

    async fn tell(&self, instance: &str, running: &[QueryInfo], ended: &[String]) -> Result<(), Fault> {
        Ok(self.shared.store.tell_queries(instance, running, ended).await?)
    }

    async fn elsewhere(&self, instance: &str) -> Result<Vec<QueryInfo>, Fault> {
        Ok(self.shared.store.queries_elsewhere(instance).await?)
    }
}

#[async_trait]
impl Watchable for Manager {
    async fn watchable(&self, topic: &str) -> Result<Option<Output>, Fault> {
        if let Some((columns, changes)) = self.shared.store.output(topic).await? {
            return Ok(Some(Output { topic: topic.to_owned(), columns, is_table: changes == Some(Changes::Upsert) }));
        }
        let is_source = self.shared.is_source(topic).await?;
        Ok(is_source.then(|| Output { topic: topic.to_owned(), columns: Vec::new(), is_table: false }))
    }

    async fn output_of(&self, definition: &str) -> Result<Option<Output>, Fault> {
        match self.get(definition).await {
            Ok(definition) => self.watchable(&definition.output_topic).await,
            Err(Fault::NotFound { .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}
