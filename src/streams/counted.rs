//! An engine whose calls are counted, and of which is remembered how it answered last.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;

use crate::manager::catalog::Source;
use crate::manager::engines::{
    AdHoc, Capabilities, Deployment, Details, Engine, EngineKind, Explained, Handle, Observed, RestorePoint, Rows, Select,
    StopMode, Stopped, Trouble,
};
use crate::telemetry::metrics::Metrics;

/// What can become of a call, as the metric has it.
pub const OUTCOMES: [&str; 5] = ["done", "refused", "busy", "unavailable", "unknown"];
/// The calls, as the metric has them.
pub const CALLS: [&str; 11] = [
    "capabilities",
    "explain",
    "deploy",
    "observe",
    "details",
    "stop",
    "resume",
    "remove",
    "query",
    "sources",
    "drift",
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

