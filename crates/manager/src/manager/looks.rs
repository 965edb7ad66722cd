//! How definitions and engines are doing, asked when somebody looks.

use super::{EngineStatus, Shared, Status};
use crate::engines::{Details, Topology};
use crate::fault::Fault;
use crate::lifecycle::record::{Position, Record};

/// How much of what happened a status shows.
const EVENTS: i64 = 20;

impl Shared {
    pub(super) async fn status(&self, id: &str) -> Result<Status, Fault> {
        let record = self.record(id).await?;
        let (details, engine_trouble) = match self.details(&record).await {
            Ok(details) => (details.unwrap_or_default(), None),
            Err(fault) => (Details::default(), Some(fault.to_string())),
        };
        let lag = match &details.group {
            Some(group) => self.lag(&record, group).await?,
            None => None,
        };
        let events = self.store.events(&record.id, None, EVENTS).await?;
        Ok(Status {
            lag,
            engine_trouble,
            records_per_second: details.records_per_second,
            failure: details.failure.or_else(|| record.last_error.clone()),
            latest_checkpoint: details.latest_checkpoint,
            events,
            definition: record.into(),
        })
    }

    pub(super) async fn topology(&self, id: &str) -> Result<Topology, Fault> {
        let record = self.record(id).await?;
        Ok(self.details(&record).await?.unwrap_or_default().topology)
    }

    /// What the engine says of it; `None` if nothing of it is there.
    async fn details(&self, record: &Record) -> Result<Option<Details>, Fault> {
        let is_there = matches!(record.position, Position::Deployed | Position::Paused);
        let Some(job_id) = record.job_id.as_deref().filter(|_| is_there) else { return Ok(None) };
        let details = self.engine(record.engine)?.details(job_id).await;
        details.map(Some).map_err(|trouble| Fault::of(record.engine, trouble))
    }

    /// Records of its sources that it has not read yet; `None` if nothing was ever committed, or the brokers are away.
    async fn lag(&self, record: &Record, group: &str) -> Result<Option<u64>, Fault> {
        let Some(deployed) = record.deployed_revision else { return Ok(None) };
        let stored = self.store.revision(&record.id, deployed).await?;
        let mut lag = None;
        for source in stored.and_then(|stored| stored.select).map(|select| select.sources).unwrap_or_default() {
            // A view has no records.
            if source.is_view() {
                continue;
            }
            match self.parts.kafka.group_lag(group, &source.topic).await {
                Ok(of_topic) => lag = lag.or(of_topic.map(|_| 0)).map(|lag| lag + of_topic.unwrap_or_default()),
                Err(error) => {
                    tracing::debug!(error = %error, group, "the lag of a stream is not known");
                    return Ok(None);
                }
            }
        }
        Ok(lag)
    }

    pub(super) async fn engines(&self) -> Vec<EngineStatus> {
        let asked = self.parts.engines.iter().map(|engine| async move {
            let capabilities = engine.capabilities().await;
            EngineStatus {
                engine: engine.kind(),
                is_default: engine.kind() == self.parts.settings.default_engine,
                is_reachable: capabilities.is_ok(),
                trouble: capabilities.as_ref().err().map(ToString::to_string),
                capabilities: capabilities.ok(),
            }
        });
        let mut engines = futures_util::future::join_all(asked).await;
        engines.sort_by_key(|status| status.engine);
        engines
    }
}
