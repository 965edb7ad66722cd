//! An engine whose calls are counted, and of which is remembered how it answered last.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;

use crate::manager::catalog::Source;
use crate::manager::engines::{
    AdHoc, Capabilities, Deployment, Details, Engine, EngineKind, Explained, Handle, Kept, Observed, RestorePoint,
    Rows, Select, StopMode, Stopped, Trouble,
};
use crate::telemetry::metrics::Metrics;

/// What can become of a call, as the metric has it.
pub const OUTCOMES: [&str; 5] = ["done", "refused", "busy", "unavailable", "unknown"];
/// The calls, as the metric has them.
pub const CALLS: [&str; 14] = [
    "capabilities",
    "cluster",
    "unprepared",
    "prepare",
    "explain",
    "deploy",
    "observe",
    "details",
    "checkpoint",
    "stop",
    "resume",
    "remove",
    "query",
    "sources",
];

/// The engine.
pub struct Counted {
    engine: Arc<dyn Engine>,
    metrics: Arc<Metrics>,
    /// When it was asked last, and why it did not answer.
    last: Mutex<Option<(Instant, Option<String>)>>,
}

impl Counted {
    /// This engine, counted there.
    pub fn new(engine: Arc<dyn Engine>, metrics: Arc<Metrics>) -> Counted {
        for call in CALLS {
            for outcome in OUTCOMES {
                metrics.engine_calls.with_label_values(&[engine.kind().name(), call, outcome]);
            }
        }
        Counted { engine, metrics, last: Mutex::default() }
    }

    /// When it was asked last, and why it did not answer; `None`: it was not asked yet.
    pub fn last(&self) -> Option<(Instant, Option<String>)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note<T>(&self, call: &str, answer: Result<T, Trouble>) -> Result<T, Trouble> {
        let (outcome, trouble) = match &answer {
            Ok(_) => (OUTCOMES[0], None),
            Err(Trouble::Refused(_)) => (OUTCOMES[1], None),
            Err(Trouble::Busy { .. }) => (OUTCOMES[2], None),
            Err(Trouble::Unavailable(why)) => (OUTCOMES[3], Some(why.clone())),
            Err(Trouble::Unknown(why)) => (OUTCOMES[4], Some(why.clone())),
        };
        self.metrics.engine_calls.with_label_values(&[self.kind().name(), call, outcome]).inc();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), trouble));
        answer
    }
}

#[async_trait]
impl Engine for Counted {
    fn kind(&self) -> EngineKind {
        self.engine.kind()
    }

    async fn capabilities(&self) -> Result<Capabilities, Trouble> {
        self.note("capabilities", self.engine.capabilities().await)
    }

    async fn cluster(&self) -> Result<String, Trouble> {
        self.note("cluster", self.engine.cluster().await)
    }

    async fn unprepared(&self, select: &Select) -> Result<Option<String>, Trouble> {
        self.note("unprepared", self.engine.unprepared(select).await)
    }

    async fn prepare(&self, select: &Select) -> Result<(), Trouble> {
        self.note("prepare", self.engine.prepare(select).await)
    }

    async fn explain(&self, select: &Select) -> Result<Explained, Trouble> {
        self.note("explain", self.engine.explain(select).await)
    }

    async fn keeps_state(&self, old: &Select, new: &Select) -> Result<(), String> {
        self.engine.keeps_state(old, new).await
    }

    async fn deploy(&self, deployment: &Deployment) -> Result<Handle, Trouble> {
        self.note("deploy", self.engine.deploy(deployment).await)
    }

    async fn observe(&self) -> Result<Vec<Observed>, Trouble> {
        self.note("observe", self.engine.observe().await)
    }

    async fn details(&self, job_id: &str) -> Result<Details, Trouble> {
        self.note("details", self.engine.details(job_id).await)
    }

    async fn checkpoint(&self, job_id: &str) -> Result<Kept, Trouble> {
        self.note("checkpoint", self.engine.checkpoint(job_id).await)
    }

    async fn stop(&self, deployment: &Deployment, handle: &Handle, mode: StopMode) -> Result<Stopped, Trouble> {
        self.note("stop", self.engine.stop(deployment, handle, mode).await)
    }

    async fn resume(&self, handle: &Handle) -> Result<(), Trouble> {
        self.note("resume", self.engine.resume(handle).await)
    }

    async fn remove(&self, handle: &Handle, restore_points: &[RestorePoint]) -> Result<(), Trouble> {
        self.note("remove", self.engine.remove(handle, restore_points).await)
    }

    async fn lead_is_lost(&self) {
        self.engine.lead_is_lost().await;
    }

    async fn query(&self, query: AdHoc) -> Result<Rows, Trouble> {
        self.note("query", self.engine.query(query).await)
    }

    async fn sources(&self) -> Result<Vec<Source>, Trouble> {
        self.note("sources", self.engine.sources().await)
    }
}
