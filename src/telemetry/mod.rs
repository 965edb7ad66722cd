//! Logs and metrics. The metric catalogue is the only place where a metric is named.

pub mod metrics;
