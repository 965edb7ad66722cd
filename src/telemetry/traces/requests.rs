//! Spans of requests over HTTP: from the first look at one to its answer's head.

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _};
use opentelemetry_sdk::trace::Span;

use super::{Sending, SentAlong};

/// What machines ask for all the time, and nobody looks at.
const NOT_TRACED: [&str; 4] = ["/livez", "/readyz", "/healthz", "/metrics"];
/// Characters of a path that a span keeps.
const MOST_CHARS: usize = 512;

/// A request under way. One that is dropped has had no answer: its caller has gone.
pub struct RequestSpan(Span);

/// Begins the span of a request, as part of its caller's trace if it sent one along; `None` where no traces are sent.
pub fn request<'h>(method: &str, path: &str, header: impl Fn(&str) -> Option<&'h str>) -> Option<RequestSpan> {
    super::sending().filter(|_| !NOT_TRACED.contains(&path)).map(|sending| begin(sending, (method, path), header))
}

fn begin<'h>(sending: &Sending, (method, path): (&str, &str), header: impl Fn(&str) -> Option<&'h str>) -> RequestSpan {
    let sent_along = SentAlong { traceparent: header("traceparent"), tracestate: header("tracestate") };
    let path: String = path.chars().take(MOST_CHARS).collect();
    let attributes = [KeyValue::new("http.request.method", method.to_owned()), KeyValue::new("url.path", path)];
    let builder =
        sending.tracer.span_builder(method.to_owned()).with_kind(SpanKind::Server).with_attributes(attributes);
    RequestSpan(sending.tracer.build_with_context(builder, &sent_along.context()))
}

impl RequestSpan {
    /// The id of its trace; `None` once no traces are sent any more.
    pub fn trace_id(&self) -> Option<String> {
        let context = self.0.span_context();
        context.is_valid().then(|| context.trace_id().to_string())
    }

    /// It was answered by a route, with a status, and with the code of the problem if it was one.
    pub fn answered(mut self, (method, route): (&str, &str), status: u16, code: Option<&str>) {
        self.0.update_name(format!("{method} {route}"));
        self.0.set_attribute(KeyValue::new("http.route", route.to_owned()));
        self.0.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            let kind = code.map_or_else(|| status.to_string(), str::to_owned);
            self.0.set_attribute(KeyValue::new("error.type", kind));
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanId;

    use super::*;
    use crate::telemetry::traces::kept::{TRACE, TRACEPARENT, value, with_kept};

    #[test]
    fn a_request_goes_on_in_the_trace_of_its_caller_and_ends_with_its_answer() {
        let (sending, kept) = with_kept();
        let header = |name: &str| (name == "traceparent").then_some(TRACEPARENT);
        let span = begin(&sending, ("GET", "/orders/o-1"), header);
        assert_eq!(span.trace_id().as_deref(), Some(TRACE));
        span.answered(("GET", "/orders/{orderId}"), 503, Some("query_timeout"));
        // Not its caller's decision: it is not to be seen.
        begin(&sending, ("GET", "/orders"), |name| (name == "traceparent").then_some(&TRACEPARENT[..54])).0.end();
        let unsampled = format!("{}00", &TRACEPARENT[..53]);
        begin(&sending, ("GET", "/orders"), |name| (name == "traceparent").then_some(unsampled.as_str())).0.end();

        let spans = kept.take();
        assert_eq!(spans.len(), 2, "{spans:#?}");
        let (answered, own) = (&spans[0], &spans[1]);
        assert_eq!((answered.name.as_ref(), answered.span_kind.clone()), ("GET /orders/{orderId}", SpanKind::Server));
        assert_eq!(answered.parent_span_id.to_string(), &TRACEPARENT[36..52]);
        for (name, expected) in [
            ("http.request.method", "GET"),
            ("http.route", "/orders/{orderId}"),
            ("url.path", "/orders/o-1"),
            ("http.response.status_code", "503"),
            ("error.type", "query_timeout"),
        ] {
            assert_eq!(value(answered, name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(answered.status, Status::error(""));
        // What is cut is no parent: a trace of its own.
        assert_eq!(own.parent_span_id, SpanId::INVALID);
        assert_ne!(own.span_context.trace_id().to_string(), TRACE);
    }
}
