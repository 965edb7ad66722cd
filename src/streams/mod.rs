//! The stream manager as a part of this process: made from the settings, with the engines that are configured, the brokers and the
//! registry; run, watched and counted. What it does is [`crate::manager`]'s.

mod counted;
pub mod engines;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use self::counted::Counted;
use self::engines::Joined;
pub use self::settings::settings;
use crate::api::EngineSeen;
use crate::config::Config;
use crate::crash;
use crate::manager::Manager;
use crate::manager::engines::{Engine, EngineKind, ObservedState};
use crate::manager::manager::Parts;
use crate::manager::ports::{Kafka, Schemas};
use crate::manager::queries::Queries;
use crate::platforms::kafka::topics::Topics;
use crate::schemas::values::Values;
use crate::store::pool;
use crate::telemetry::metrics::Metrics;

/// Between two counts of streams by their state.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// How long an engine's last answer says something about it.
const LATELY: Duration = Duration::from_secs(60);

/// How long the database may take to hear that this process ends.
const LEAVING: Duration = Duration::from_secs(2);

/// The manager of this process, and what is seen of its engines.
pub struct Streams {
    /// What the API asks.
    pub manager: Manager,
    engines: Vec<Arc<Counted>>,
    queries: Option<Queries>,
    deployed: Option<engines::Queries>,
    metrics: Arc<Metrics>,
}

impl Streams {
    /// The manager, where one is enabled; streams can be joined with these views. Connects to nothing yet.
    pub fn of(config: &Config, metrics: &Arc<Metrics>, joined: Joined) -> Result<Option<Streams>> {
        if !config.manager.enabled {
            return Ok(None);
        }
        let settings = settings(config)?;
        let schemas = match config.schema_registry.url.is_empty() {
            true => None,
            false => {
                let values = Values::new(&config.schema_registry, Arc::clone(metrics))?;
                Some(Arc::new(values) as Arc<dyn Schemas>)
            }
        };
        let engines::Made { engines: made, deployed } =
            engines::of(config, &settings, schemas.as_ref(), joined).context("the engines of the stream manager")?;
        let engines: Vec<Arc<Counted>> =
            made.into_iter().map(|engine| Arc::new(Counted::new(engine, Arc::clone(metrics)))).collect();
        let parts = Parts {
            settings,
            pool: pool::manager_pool(&config.database)?,
            kafka: Arc::new(Topics::new(&config.kafka)) as Arc<dyn Kafka>,
            schemas,
            engines: engines.iter().map(|engine| Arc::clone(engine) as Arc<dyn Engine>).collect(),
            crash: crash::point,
        };
        for state in STATES {
            metrics.streams.with_label_values(&[word(state)]);
        }
        let manager = Manager::new(parts);
        Ok(Some(Streams { manager, engines, queries: None, deployed, metrics: Arc::clone(metrics) }))
    }

    /// The same, and these queries are counted, too.
    pub fn counting(self, queries: Queries) -> Streams {
        Streams { queries: Some(queries), ..self }
    }

    /// How the engines have answered lately; what was not asked lately is not said. Whoever leads asks all of them every few
    /// seconds, other instances only when somebody wants something of them.
    pub fn engines(&self) -> impl Fn() -> Vec<EngineSeen> + Send + Sync + use<> {
        let engines = self.engines.clone();
        move || {
            let lately = |engine: &Arc<Counted>| {
                let (at, trouble) = engine.last()?;
                (at.elapsed() < LATELY).then_some(EngineSeen { engine: engine.kind().name(), trouble })
            };
            engines.iter().filter_map(lately).collect()
        }
    }

    /// Leads or waits to lead, and counts, until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        self.lead(stop).await;
        // Side by side: however long a commit takes, other instances are told.
        tokio::join!(self.end_deployed(), self.end_queries());
    }

    /// Nobody deploys here any more. What is left open would hold up readers of what it writes.
    async fn end_deployed(&self) {
        if let Some(deployed) = &self.deployed {
            deployed.leave().await;
        }
    }

    /// Whoever queried here begins anew elsewhere, and finds the place free.
    async fn end_queries(&self) {
        let leaving = self.queries.as_ref().map(Queries::leave);
        if let Some(leaving) = leaving
            && tokio::time::timeout(LEAVING, leaving).await.is_err()
        {
            tracing::warn!("other instances are not told that the queries of this one end");
        }
    }

    async fn lead(&self, stop: CancellationToken) {
        let counting = async {
            loop {
                self.count().await;
                if let Some(deployed) = &self.deployed {
                    deployed.show(&self.metrics);
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(COUNT_EVERY) => {}
                }
            }
        };
        let leading = async {
            crash::point("part.manager");
            self.manager.run(stop.clone()).await;
        };
        // If the manager ends unasked, nobody counts any more: the process notices that a part of it has ended.
        let mut leading = std::pin::pin!(leading);
        tokio::select! {
            () = &mut leading => return,
            () = counting => {}
        }
        leading.await;
    }

    /// Sets the gauges of queries and of streams by state. If the database does not answer it stays as it is.
    async fn count(&self) {
        if let Some(queries) = &self.queries {
            self.metrics.queries.set(i64::try_from(queries.list(None).len()).unwrap_or(i64::MAX));
        }
        let began = Instant::now();
        let counts = match self.manager.by_state().await {
            Ok(counts) => counts,
            Err(error) => {
                tracing::debug!(error = %error, after = ?began.elapsed(), "streams are not counted");
                return;
            }
        };
        for state in STATES {
            let count = counts.iter().find(|(seen, _)| *seen == state).map_or(0, |(_, count)| *count);
            self.metrics.streams.with_label_values(&[word(state)]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// Every state that a stream may be seen in.
const STATES: [ObservedState; 10] = [
    ObservedState::Absent,
    ObservedState::Unknown,
    ObservedState::Starting,
    ObservedState::Running,
    ObservedState::Degraded,
    ObservedState::Restarting,
    ObservedState::Paused,
    ObservedState::Stopping,
    ObservedState::Stopped,
    ObservedState::Failed,
];

const fn word(state: ObservedState) -> &'static str {
    match state {
        ObservedState::Absent => "absent",
        ObservedState::Unknown => "unknown",
        ObservedState::Starting => "starting",
        ObservedState::Running => "running",
        ObservedState::Degraded => "degraded",
        ObservedState::Restarting => "restarting",
        ObservedState::Paused => "paused",
        ObservedState::Stopping => "stopping",
        ObservedState::Stopped => "stopped",
        ObservedState::Failed => "failed",
    }
}

/// The engines that are named in settings and those of the manager are the same.
const _: () = assert!(EngineKind::ALL.len() == crate::config::ENGINES.len());
