//! The exporter, and what comes of it: a collector that is away costs a line in the log and a count, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use crate::telemetry::metrics::{LOST, SENT, spans};

/// An exporter whose spans are counted. It is called by one thread only, which is not of the runtime.
#[derive(Debug)]
pub(super) struct Counted<E> {
    exporter: E,
    /// Whether the last ones were lost.
    fails: AtomicBool,
}

impl<E> Counted<E> {
    pub(super) fn new(exporter: E) -> Counted<E> {
        Counted { exporter, fails: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let sent = self.exporter.export(batch).await;
        let had_failed = self.fails.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Ok(()) if had_failed => tracing::info!("traces are sent again"),
            Err(error) if !had_failed => {
                tracing::warn!(%error, "traces are lost, as the collector does not take them; said once until it does");
            }
            _ => {}
        }
        spans().with_label_values(&[if sent.is_ok() { SENT } else { LOST }]).inc_by(count);
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
