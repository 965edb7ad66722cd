//! The engine in this process, made from the service's settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Joined;
use super::views::ServedViews;
use crate::config::{Config, EmbeddedSettings};
use crate::crash;
use crate::embedded::engine::{Counts, Embedded};
use crate::embedded::log::{Delivery, Log};
use crate::embedded::plan::Limits;
use crate::embedded::settings::Settings;
use crate::embedded::table::TableBounds;
use crate::embedded::trial::Trial;
use crate::embedded::views::Views;
use crate::manager::engines::Engine;
use crate::manager::ports::Schemas;
use crate::platforms::kafka::embedded::JobLog;
use crate::telemetry::metrics::Metrics;

/// What the engine is told.
pub fn settings(embedded: &EmbeddedSettings, joins: usize) -> Settings {
    Settings {
        queries: embedded.queries,
        limits: Limits {
            max_window_ms: embedded.max_window_ms,
            lateness_ms: embedded.lateness_ms,
            max_joins: joins,
            ..Limits::default()
        },
        adhoc_memory_bytes: embedded.adhoc_memory_bytes,
        persistent_memory_bytes: embedded.persistent_memory_bytes,
        max_ahead_ms: embedded.max_ahead_ms,
        idle: Duration::from_millis(embedded.idle_ms),
        commit: Duration::from_millis(embedded.commit_ms),
        table: TableBounds { rows: embedded.table_rows, bytes: embedded.table_bytes },
        table_refresh: Duration::from_millis(embedded.table_refresh_ms),
        ..Settings::default()
    }
}

/// The engine of these settings, without views, and without a process for trials. Connects to nothing.
pub fn engine(config: &Config, schemas: Option<&Arc<dyn Schemas>>) -> Embedded {
    made(config, schemas, None, None)
}

fn made(
    config: &Config,
    schemas: Option<&Arc<dyn Schemas>>,
    views: Option<Arc<dyn Views>>,
    trial: Option<Trial>,
) -> Embedded {
    let delivery = match config.embedded.delivery.as_str() {
        "at_least_once" => Delivery::AtLeastOnce,
        _ => Delivery::ExactlyOnce,
    };
    let log: Arc<dyn Log> = Arc::new(JobLog::new(&config.kafka, delivery, crash::point));
    let settings = Settings { trial, ..settings(&config.embedded, config.manager.limits.joins) };
    Embedded::joining(log, schemas.cloned(), views, settings)
}

/// By the hidden command of this program; on Linux of the one that runs, even if another one stands in its place by now.
fn trial() -> Trial {
    let program = match cfg!(target_os = "linux") {
        true => PathBuf::from("/proc/self/exe"),
        false => std::env::current_exe().unwrap_or_else(|_| PathBuf::from("streamview")),
    };
    Trial { program, arguments: vec!["judge".to_owned()] }
}

pub(super) fn add(
    config: &Config,
    (schemas, joined): (Option<&Arc<dyn Schemas>>, Joined),
    engines: &mut Vec<Arc<dyn Engine>>,
) -> Queries {
    let views = Arc::new(ServedViews::new(joined)); // reads them on the runtime that calls
    let engine = made(config, schemas, Some(views), Some(trial()));
    engines.push(Arc::new(engine.clone()));
    Queries(engine)
}

/// The deployed queries of this process, for whoever counts them and ends them.
pub struct Queries(Embedded);

impl Queries {
    /// Has them commit what they have and end.
    pub(in crate::streams) async fn leave(&self) {
        self.0.leave().await;
    }

    /// Shows what they do. What does not run any more is shown no more.
    pub(in crate::streams) fn show(&self, metrics: &Metrics) {
        let metrics = &metrics.deployed_queries;
        metrics.records.reset();
        metrics.state_bytes.reset();
        metrics.watermark_lag.reset();
        for query in self.0.running() {
            let (name, counts) = (query.definition(), query.counts());
            for (outcome, counter) in [
                ("read", &counts.read),
                ("written", &counts.written),
                ("late", &counts.late),
                ("future", &counts.future),
                ("refused", &counts.refused),
                ("failed_groups", &counts.failed_groups),
            ] {
                let value = i64::try_from(Counts::get(counter)).unwrap_or(i64::MAX);
                metrics.records.with_label_values(&[name, outcome]).set(value);
            }
            let bytes = i64::try_from(Counts::get(&counts.state_bytes)).unwrap_or(i64::MAX);
            metrics.state_bytes.with_label_values(&[name]).set(bytes);
            let watermark = counts.watermark_ms.load(Ordering::Relaxed);
            if watermark > 0 {
                let lag = jiff::Timestamp::now().as_millisecond() - watermark;
                metrics.watermark_lag.with_label_values(&[name]).set(lag as f64 / 1000.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_nobody_are_the_engines_own() {
        let config = Config::defaults();
        let own = Settings::default();
        let limits = Limits { max_joins: config.manager.limits.joins, ..own.limits.clone() };
        assert_eq!(settings(&config.embedded, config.manager.limits.joins), Settings { limits, ..own });
    }
}
