//! Spans that are kept in memory, for tests.

use std::sync::{Arc, Mutex};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};

use super::{SERVICE, Sending, everybody_s_choice};

/// A trace that somebody else has begun.
pub const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// As it is sent along.
pub const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What was told so far.
#[derive(Debug, Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl Kept {
    /// Takes it.
    pub fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

/// Sends to memory, whatever the environment says.
pub fn with_kept() -> (Sending, Kept) {
    let kept = Kept::default();
    let builder = SdkTracerProvider::builder().with_sampler(everybody_s_choice());
    let provider = builder.with_simple_exporter(kept.clone()).build();
    let tracer = provider.tracer(SERVICE);
    (Sending { provider, tracer }, kept)
}

/// The value of an attribute, as text.
pub fn value(span: &SpanData, name: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == name).map(|pair| pair.value.to_string())
}
