//! The list of engines: a line makes each, where its settings are there.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::config::Config;
use crate::manager::engines::Engine;
use crate::manager::engines::flink::FlinkEngine;
use crate::manager::engines::ksqldb::{Ksqldb, Patience};
use crate::manager::ports::Schemas;
use crate::manager::settings::ManagerSettings;
use crate::schemas::client::install_tls;

pub use self::embedded::Queries;

/// The engines of a process.
pub struct Made {
    /// Those that are configured.
    pub engines: Vec<Arc<dyn Engine>>,
    /// The deployed queries of the one in this process, where it is one of them.
    pub deployed: Option<Queries>,
}

/// The engines that are configured. Connects to nothing. `schemas` is the registry, by which the one in this process reads.
pub fn of(config: &Config, settings: &ManagerSettings, schemas: Option<&Arc<dyn Schemas>>) -> Result<Made> {
    // Chosen before any client is made.
    install_tls();
    // An engine redirects nowhere, and a redirect could take credentials elsewhere.
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let http = http.build().context("no HTTP client can be made")?;
    let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
    if let Some(flink) = settings.flink.clone() {
        engines.push(Arc::new(FlinkEngine::new(flink, http)));
    }
    if let Some(ksqldb) = settings.ksqldb.clone() {
        engines.push(Arc::new(Ksqldb::new(ksqldb, Patience::default()).context("ksqldb.url")?));
    }
    let deployed = config.embedded.is_on().then(|| embedded::add(config, schemas, &mut engines));
    Ok(Made { engines, deployed })
}

#[cfg(feature = "embedded-engine")]
pub mod embedded {
    //! The engine in this process, made from the service's settings.

    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use crate::config::{Config, EmbeddedSettings};
    use crate::crash;
    use crate::embedded::engine::{Counts, Embedded};
    use crate::embedded::log::{Delivery, Log};
    use crate::embedded::plan::Limits;
    use crate::embedded::settings::Settings;
    use crate::embedded::table::TableBounds;
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
        }
    }

    /// The engine of these settings. Connects to nothing.
    pub fn engine(config: &Config, schemas: Option<&Arc<dyn Schemas>>) -> Embedded {
        let delivery = match config.embedded.delivery.as_str() {
            "at_least_once" => Delivery::AtLeastOnce,
            _ => Delivery::ExactlyOnce,
        };
        let log: Arc<dyn Log> = Arc::new(JobLog::new(&config.kafka, delivery, crash::point));
        Embedded::new(log, schemas.cloned(), settings(&config.embedded, config.manager.limits.joins))
    }

    pub(super) fn add(
        config: &Config,
        schemas: Option<&Arc<dyn Schemas>>,
        engines: &mut Vec<Arc<dyn Engine>>,
    ) -> Queries {
        let engine = engine(config, schemas);
        engines.push(Arc::new(engine.clone()));
        Queries(engine)
    }

    /// The deployed queries of this process, for whoever counts.
    pub struct Queries(Embedded);

    impl Queries {
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
}

#[cfg(not(feature = "embedded-engine"))]
mod embedded {
    //! This build has no engine of its own: [`crate::config::EmbeddedSettings::is_on`] is never so.

    use std::sync::Arc;

    use crate::config::Config;
    use crate::manager::engines::Engine;
    use crate::manager::ports::Schemas;
    use crate::telemetry::metrics::Metrics;

    /// There are none.
    pub struct Queries;

    impl Queries {
        pub(in crate::streams) fn show(&self, _: &Metrics) {}
    }

    pub(super) fn add(_: &Config, _: Option<&Arc<dyn Schemas>>, _: &mut Vec<Arc<dyn Engine>>) -> Queries {
        Queries
    }
}
