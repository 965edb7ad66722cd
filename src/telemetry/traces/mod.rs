//! Traces: what a batch and a request took, step by step, sent by OTLP over HTTP to where the standard variables say
//! (`OTEL_EXPORTER_OTLP_ENDPOINT` and its like: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>). Where none of them
//! does, nothing is noted and nothing is sent.
//!
//! They are the process's, as logs are. Spans are made of times that were noted, once these are known: none is open across an
//! `await` of ours. Names of spans and attributes are those of OpenTelemetry's semantic conventions, and stand in this room only.

mod batches;
mod exporter;
#[cfg(test)]
mod kept;
mod requests;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

pub use self::batches::{Attempt, Step, Steps, tell};
pub use self::requests::{RequestSpan, request};

use self::exporter::Counted;
use crate::domain::record::Headers;

/// As the process is called where nobody says otherwise.
const SERVICE: &str = "streamview";
/// How long a process that stops goes on sending what it has.
const LAST_SPANS: Duration = Duration::from_secs(2);

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const COMPRESSIONS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const PACKED: [&str; 2] = ["gzip", "none"];
/// What the variable may say, and whether it takes a ratio.
const SAMPLERS: [(&str, bool); 6] = [
    ("always_on", false),
    ("always_off", false),
    ("traceidratio", true),
    ("parentbased_always_on", false),
    ("parentbased_always_off", false),
    ("parentbased_traceidratio", true),
];

static SENDING: OnceLock<Sending> = OnceLock::new();

/// What traces are sent with.
struct Sending {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Begins to send traces, if the environment says where to. What it says and what is not spoken here is told in the log, and ends
/// nothing: such variables are often set for all that runs somewhere. A provider of TLS has to be installed before.
pub fn begin() {
    let variable = |name: &str| std::env::var(name).ok();
    match are_wanted(variable) {
        Ok(false) => return,
        Ok(true) => {}
        Err(why) => return tracing::warn!("no traces are sent: {why}"),
    }
    let odd = odd_sampler(variable);
    if let Some(why) = &odd {
        tracing::warn!("{why}; all traces are kept whose caller does not say otherwise");
    }
    match Sending::begin(odd.is_some()).map(|sending| SENDING.set(sending).is_ok()) {
        Ok(true) => tracing::info!("traces are sent by OTLP"),
        Ok(false) => tracing::debug!("traces are sent already"),
        Err(why) => tracing::warn!("no traces are sent: {why}"),
    }
}

/// Sends what there is yet to send, for two seconds at most; nothing is sent afterwards.
pub async fn end() {
    let Some(sending) = SENDING.get() else { return };
    let provider = sending.provider.clone();
    // It waits for a thread of its own.
    let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_SPANS)).await;
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "the last traces were not sent");
    }
}

fn sending() -> Option<&'static Sending> {
    SENDING.get()
}

impl Sending {
    /// As the variables say; `is_odd`: but for the sampler.
    fn begin(is_odd: bool) -> Result<Sending, String> {
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build();
        // Its own words may quote the endpoint, in which a secret may stand.
        let exporter = exporter.map_err(|_| "one of the variables OTEL_EXPORTER_OTLP_* cannot be used".to_owned())?;
        let builder = SdkTracerProvider::builder().with_batch_exporter(Counted::new(exporter));
        let builder = if is_odd { builder.with_sampler(everybody_s_choice()) } else { builder };
        let provider = builder.with_resource(resource()).build();
        let tracer = provider.tracer(SERVICE);
        Ok(Sending { provider, tracer })
    }
}

/// Whoever calls decides, and where nobody does they are kept: OpenTelemetry's default.
fn everybody_s_choice() -> Sampler {
    Sampler::ParentBased(Box::new(Sampler::AlwaysOn))
}

/// Who sends them, with what `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say.
fn resource() -> Resource {
    let said = Resource::builder().build();
    let said = |name: &'static str| said.get(&name.into()).map(|value| value.to_string());
    let mut builder = Resource::builder();
    // What is added has the last word. `unknown_service` is OpenTelemetry's name for who is not called anything.
    if said("service.name").is_none_or(|name| name.is_empty() || name.starts_with("unknown_service")) {
        builder = builder.with_service_name(SERVICE);
    }
    if said("service.version").is_none() {
        builder = builder.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    builder.build()
}

/// Whether these variables say that traces are sent; why they cannot be, where they ask for what is not spoken here. An empty one
/// is none.
fn are_wanted(variable: impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    match variable("OTEL_TRACES_EXPORTER").as_deref().map(str::trim) {
        Some("none") => return Ok(false),
        Some("otlp") => {}
        Some(other) => {
            return Err(format!("OTEL_TRACES_EXPORTER is `{other}`, and may be `otlp` or `none` here"));
        }
        None if ENDPOINTS.into_iter().find_map(variable).is_none() => return Ok(false),
        None => {}
    }
    let first_of = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, variable(name)?)));
    if let Some((name, protocol)) = first_of(PROTOCOLS).filter(|(_, protocol)| protocol.trim() != "http/protobuf") {
        let spoken = "and only `http/protobuf` is spoken here, which collectors take on port 4318";
        return Err(format!("{name} is `{}`, {spoken}", protocol.trim()));
    }
    if let Some((name, packed)) = first_of(COMPRESSIONS).filter(|(_, packed)| !PACKED.contains(&packed.trim())) {
        return Err(format!("{name} is `{}`, and may be `gzip` or `none` here", packed.trim()));
    }
    // Not quoted: a secret may stand in it.
    let is_url = |text: &str| url::Url::parse(text.trim()).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    match first_of(ENDPOINTS).filter(|(_, endpoint)| !is_url(endpoint)) {
        Some((name, _)) => Err(format!("{name} has to be a URL that begins with http:// or https://")),
        None => Ok(true),
    }
}

/// What is wrong with the sampler that these variables name.
fn odd_sampler(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let name = variable("OTEL_TRACES_SAMPLER").filter(|name| !name.trim().is_empty())?;
    let Some((_, takes_ratio)) = SAMPLERS.iter().find(|(known, _)| *known == name) else {
        let known = SAMPLERS.map(|(known, _)| known).join(", ");
        return Some(format!("OTEL_TRACES_SAMPLER is `{name}`, and may be one of {known}"));
    };
    let ratio = variable("OTEL_TRACES_SAMPLER_ARG");
    let is_ratio = |text: &str| text.parse::<f64>().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio));
    match (takes_ratio, &ratio) {
        (true, Some(text)) if is_ratio(text) => None,
        (true, text) => Some(format!(
            "OTEL_TRACES_SAMPLER_ARG is `{}`, and has to be a ratio from 0 to 1 for {name}",
            text.as_deref().unwrap_or_default()
        )),
        (false, _) => None,
    }
}

/// The trace id of a W3C `traceparent` (version 00 to fe, not all zero).
pub fn trace_id_of(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace_id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let valid = hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && hex(trace_id, 32)
        && hex(parent, 16)
        && hex(flags, 2)
        && trace_id.bytes().any(|byte| byte != b'0')
        && parent.bytes().any(|byte| byte != b'0');
    valid.then_some(trace_id)
}

/// The trace that a record comes from, as its producer says.
pub fn trace_id_in(headers: Headers<'_>) -> Option<&str> {
    text_of(headers, "traceparent").and_then(trace_id_of)
}

/// The value of a header that stands there once and is text.
fn text_of<'r>(headers: Headers<'r>, name: &str) -> Option<&'r str> {
    headers.only(name).ok().flatten().and_then(|value| std::str::from_utf8(value).ok())
}

/// Bytes of a `tracestate` that are taken along: as many as W3C asks for. What is longer is whoever's sends it.
const MOST_STATE: usize = 512;

/// What somebody has sent along: `traceparent` and `tracestate`.
struct SentAlong<'a> {
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
}

impl opentelemetry::propagation::Extractor for SentAlong<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent,
            "tracestate" => self.tracestate.filter(|state| state.len() <= MOST_STATE),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

impl SentAlong<'_> {
    /// What a span of ours goes on from; empty where nothing valid was sent.
    fn context(&self) -> Context {
        use opentelemetry::propagation::TextMapPropagator as _;
        // It is laxer than the specification in what it takes.
        match self.traceparent.and_then(trace_id_of) {
            Some(_) => TraceContextPropagator::new().extract_with_context(&Context::new(), self),
            None => Context::new(),
        }
    }

    /// The same, where it is valid.
    fn span_context(&self) -> Option<opentelemetry::trace::SpanContext> {
        let context = self.context();
        let sent = context.span().span_context().clone();
        sent.is_valid().then_some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn traces_are_sent_where_a_variable_says_where_to_and_not_otherwise() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for (variables, wanted) in [
            (&[][..], false),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], false),
            (&[endpoint], true),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces")], true),
            (&[("OTEL_TRACES_EXPORTER", "otlp")], true),
            (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], false),
            (&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")], false),
            (&[endpoint, ("OTEL_SDK_DISABLED", "false")], true),
            (&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], true),
            // Of traces alone.
            (
                &[
                    endpoint,
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
                ],
                true,
            ),
            // What is not spoken matters to nobody where nothing is sent.
            (&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], false),
        ] {
            assert_eq!(are_wanted(said(variables)), Ok(wanted), "{variables:?}");
        }
        for (variables, named) in [
            ([endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "OTEL_EXPORTER_OTLP_PROTOCOL is `grpc`"),
            ([endpoint, ("OTEL_TRACES_EXPORTER", "zipkin")], "OTEL_TRACES_EXPORTER is `zipkin`"),
            ([endpoint, ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")], "OTEL_EXPORTER_OTLP_COMPRESSION is `zstd`"),
            ([("OTEL_EXPORTER_OTLP_ENDPOINT", "user:s3cr3t@collector"); 2], "OTEL_EXPORTER_OTLP_ENDPOINT has to be"),
        ] {
            let why = are_wanted(said(&variables)).unwrap_err();
            assert!(why.starts_with(named) && !why.contains("s3cr3t"), "{why}");
        }
    }

    #[test]
    fn a_sampler_that_is_none_is_named() {
        let (sampler, ratio) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
        for (variables, named) in [
            (&[][..], None),
            (&[(sampler, "")], None),
            (&[(sampler, "always_off")], None),
            (&[(sampler, "parentbased_traceidratio"), (ratio, "0.01")], None),
            (&[(sampler, "jaeger_remote")], Some("OTEL_TRACES_SAMPLER is `jaeger_remote`")),
            (&[(sampler, "traceidratio")], Some("OTEL_TRACES_SAMPLER_ARG is ``")),
            (&[(sampler, "traceidratio"), (ratio, "1.5")], Some("OTEL_TRACES_SAMPLER_ARG is `1.5`")),
        ] {
            let why = odd_sampler(said(variables));
            assert_eq!(why.is_some(), named.is_some(), "{variables:?}: {why:?}");
            assert!(why.unwrap_or_default().starts_with(named.unwrap_or_default()), "{variables:?}");
        }
    }

    #[test]
    fn only_a_valid_traceparent_gives_the_trace_id() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(trace_id_of(&format!("00-{id}-b7ad6b7169203331-01")), Some(id));
        assert_eq!(trace_id_of(&format!("01-{id}-b7ad6b7169203331-01-more")), Some(id));
        for invalid in [
            String::new(),
            id.to_owned(),
            format!("00-{id}-b7ad6b7169203331"),
            format!("00-{id}-b7ad6b7169203331-01-more"),
            format!("ff-{id}-b7ad6b7169203331-01"),
            format!("00-{}-b7ad6b7169203331-01", id.to_uppercase()),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{id}-{}-01", "0".repeat(16)),
            format!("00-{}-b7ad6b7169203331-01", &id[1..]),
        ] {
            assert_eq!(trace_id_of(&invalid), None, "{invalid}");
        }
    }
}
