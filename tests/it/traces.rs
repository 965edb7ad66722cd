//! Traces, as a collector gets them by OTLP.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use streamview_lab::servers::free_port;

use crate::rest::header;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, life};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent(parent: &str) -> String {
    format!("00-{TRACE}-{parent}-01")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: Option<&AnyValue>) -> Option<String> {
    match value?.value.as_ref()? {
        Any::StringValue(text) => Some(text.clone()),
        Any::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

/// An attempt that was made again, on a machine that is busy, is none of what is looked for.
fn is_well(span: &Span) -> bool {
    attribute(&span.attributes, "error.type").is_none()
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    text(attributes.iter().find(|pair| pair.key == name)?.value.as_ref())
}

/// A collector: takes traces over HTTP and keeps them.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    /// `service.name` of those who sent any.
    services: Arc<Mutex<Vec<String>>>,
    /// Content type and token of each request.
    heads: Arc<Mutex<Vec<[Option<String>; 2]>>>,
}

impl Collector {
    /// Begins to take them at that address.
    fn listen(&self, listener: TcpListener) {
        let kept = self.clone();
        let server = HttpServer::new(move || {
            let kept = kept.clone();
            // As much as an exporter may send at once.
            App::new().app_data(web::PayloadConfig::new(64 << 20)).route(
                "/v1/traces",
                web::post().to(move |request: actix_web::HttpRequest, body: web::Bytes| {
                    kept.take(&request, body);
                    async { HttpResponse::Ok().content_type("application/x-protobuf").finish() }
                }),
            )
        });
        tokio::spawn(server.workers(1).disable_signals().listen(listener).unwrap().run());
    }

    fn take(&self, request: &actix_web::HttpRequest, body: web::Bytes) {
        let head = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        self.heads.lock().unwrap().push([head("content-type"), head("x-token")]);
        for of_resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            let resource = of_resource.resource.unwrap();
            self.services.lock().unwrap().extend(attribute(&resource.attributes, "service.name"));
            let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            self.spans.lock().unwrap().extend(spans);
        }
    }

    /// The span of that name in the trace that did not fail, once it is there.
    async fn span(&self, trace: &str, name: &str) -> Span {
        self.child(trace, &[], name).await
    }

    /// Likewise, the one below a span; of none, below any.
    async fn child(&self, trace: &str, parent: &[u8], name: &str) -> Span {
        until(&format!("the span `{name}` of {trace} is there"), PATIENCE, || async {
            let spans = self.spans.lock().unwrap();
            let mut named = spans.iter().filter(|span| span.name == name && hex(&span.trace_id) == trace);
            named.find(|span| is_well(span) && (parent.is_empty() || span.parent_span_id == parent)).cloned()
        })
        .await
    }

    /// The spans that were taken so far and begin with these letters.
    fn named(&self, start: &str) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.name.starts_with(start)).cloned().collect()
    }
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

fn with_trace(mut record: TestRecord, traceparent: &str) -> TestRecord {
    record.headers.push(("traceparent".to_owned(), traceparent.as_bytes().to_vec()));
    record
}

async fn get(instance: &Instance, path: &str, traceparent: &str) -> reqwest::Response {
    instance.http.get(instance.url(path)).header("traceparent", traceparent).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_leads_from_the_producer_into_the_view_and_to_who_reads_it() {
    let (collector, (listener, endpoint)) = (Collector::default(), listener());
    collector.listen(listener);
    let world = World::new(1).await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=s3cr3t"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let instance = world.start_with(&settings).await;
    let [first, second] = life("o-1", 2).try_into().unwrap();

    world.publish([with_trace(first.record(), &traceparent(PARENT))]).await;

    let process = collector.span(TRACE, &format!("process {}", world.topic)).await;
    assert_eq!(hex(&process.parent_span_id), PARENT);
    for (name, value) in [
        ("messaging.system", "kafka"),
        ("messaging.destination.name", world.topic.as_str()),
        ("messaging.consumer.group.name", &world.group),
        ("messaging.destination.partition.id", "0"),
        ("messaging.kafka.offset", "0"),
        ("streamview.view", "orders"),
    ] {
        assert_eq!(attribute(&process.attributes, name).as_deref(), Some(value), "{name}");
    }
    let poll = collector.span(TRACE, &format!("poll {}", world.topic)).await;
    assert!(poll.start_time_unix_nano >= process.start_time_unix_nano);
    let mut from = process.start_time_unix_nano;
    for step in ["parse", "load", "fold", "upsert", "commit"] {
        let span = collector.child(TRACE, &process.span_id, step).await;
        // The first attempt has been polled, and perhaps connected.
        if step == "parse" {
            from = span.start_time_unix_nano;
        }
        assert_eq!(span.start_time_unix_nano, from, "{step} follows the step before");
        from = span.end_time_unix_nano;
    }
    assert_eq!(from, process.end_time_unix_nano);

    // Who reads it: the trace is the caller's, and the id of an answer that of its span.
    let reader = "c7ad6b7169203331";
    let response = get(&instance, "/orders/o-1", &traceparent(reader)).await;
    assert_eq!((response.status().as_u16(), header(&response, "x-trace-id").as_str()), (200, TRACE));
    let answered = collector.span(TRACE, "GET /orders/{orderId}").await;
    assert_eq!(hex(&answered.parent_span_id), reader);
    assert_eq!(attribute(&answered.attributes, "http.response.status_code").as_deref(), Some("200"));
    let response = instance.get("/orders/o-2").await;
    let own = header(&response, "x-trace-id");
    let missing = collector.span(&own, "GET /orders/{orderId}").await;
    assert_eq!(attribute(&missing.attributes, "http.response.status_code").as_deref(), Some("404"));
    // Machines that ask how it is are not traced; it was ready, so they have.
    assert!(collector.named("GET /readyz").is_empty() && collector.named("GET /metrics").is_empty());

    // What is refused is found by the trace it came from.
    let odd = TestRecord { payload: Some(b"{ broken".to_vec()), ..second.record() };
    world.publish([with_trace(odd, &traceparent(PARENT))]).await;
    world.until_consumed(2).await;
    until("it is told with its trace", PATIENCE, || async {
        let log = instance.log_text();
        log.lines().any(|line| line.contains("record refused") && line.contains(TRACE)).then_some(())
    })
    .await;

    // What is yet to be sent when it stops is sent.
    let last = "d7ad6b7169203331";
    world.publish([with_trace(second.record(), &format!("00-{}-{last}-01", "e".repeat(32)))]).await;
    world.until_consumed(3).await;
    instance.stop().await;
    let process = collector.span(&"e".repeat(32), &format!("process {}", world.topic)).await;
    assert_eq!(hex(&process.parent_span_id), last);
    assert!(collector.services.lock().unwrap().iter().all(|name| name == "streamview"));
    let expected = ["application/x-protobuf", "s3cr3t"].map(|value| Some(value.to_owned()));
    assert!(collector.heads.lock().unwrap().iter().all(|head| *head == expected));
    assert!(!instance.log_text().contains("s3cr3t"), "{}", instance.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_links_to_the_traces_that_it_comes_from() {
    let (collector, (listener, endpoint)) = (Collector::default(), listener());
    collector.listen(listener);
    let world = World::new(1).await;
    // They are there before anybody asks for them, so they come together.
    let traced = |(number, event): (usize, TestEvent)| {
        with_trace(event.record(), &format!("00-{:032x}-{PARENT}-01", number + 1))
    };
    world.publish(life("o-1", 40).into_iter().enumerate().map(traced)).await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{endpoint}/v1/traces")),
        ("OTEL_SERVICE_NAME", "orders-view".to_owned()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let instance = world.start_with(&settings).await;
    world.until_consumed(40).await;
    instance.stop().await;

    let batches: Vec<Span> = collector.named("process ").into_iter().filter(is_well).collect();
    let counts = batches.iter().map(|span| {
        let count = attribute(&span.attributes, "messaging.batch.message_count");
        // Of one record it is a part of that one's trace.
        count.map_or(1, |count| count.parse::<usize>().unwrap())
    });
    let counts: Vec<usize> = counts.collect();
    assert_eq!(counts.iter().sum::<usize>(), 40, "{counts:?}");
    let largest = counts.iter().max().unwrap();
    assert!(*largest > 1, "{counts:?}");
    for (span, count) in batches.iter().zip(&counts).filter(|(_, count)| **count > 1) {
        assert!(span.parent_span_id.is_empty());
        assert_eq!(span.links.len(), *count);
        assert!(span.links.iter().all(|link| hex(&link.span_id) == PARENT));
    }
    assert!(collector.services.lock().unwrap().iter().all(|name| name == "orders-view"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_one_line_and_a_count_and_is_found_again() {
    let (collector, port) = (Collector::default(), free_port().unwrap());
    let endpoint = format!("http://127.0.0.1:{port}");
    let world = World::new(1).await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let instance = world.start_with(&settings).await;
    for sequence in 1..=5 {
        world.publish(life("o-1", 5).iter().skip(sequence - 1).take(1).map(|event| event.record())).await;
        instance.order_at("o-1", sequence as i64).await;
    }
    let spans = async |result: &str| instance.metric("streamview_spans_total", &[result]).await;
    until("spans are lost again and again", PATIENCE, || async {
        instance.get("/orders").await;
        (spans("lost").await > 40.0).then_some(())
    })
    .await;
    let told = |what: &str| instance.log_text().lines().filter(|line| line.contains(what)).count();
    assert_eq!(told("traces are lost"), 1, "{}", instance.log_text());

    collector.listen(TcpListener::bind(("127.0.0.1", port)).unwrap());
    until("traces are sent again", PATIENCE, || async {
        instance.get("/orders").await;
        (!collector.named("GET /orders").is_empty()).then_some(())
    })
    .await;
    until("what was sent is counted", PATIENCE, || async { (spans("sent").await > 0.0).then_some(()) }).await;
    until("it is said", PATIENCE, || async { (told("traces are sent again") > 0).then_some(()) }).await;
    assert_eq!((told("traces are lost"), told("traces are sent again")), (1, 1), "{}", instance.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_spoken_is_said_by_its_variable_and_nothing_is_sent() {
    let (collector, (listener, endpoint)) = (Collector::default(), listener());
    collector.listen(listener);
    let world = World::new(1).await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let instance = world.start_with(&settings).await;
    world.publish(life("o-1", 1).iter().map(|event| event.record())).await;
    instance.order_at("o-1", 1).await;
    instance.stop().await;
    let log = instance.log_text();
    assert_eq!(log.matches("OTEL_EXPORTER_OTLP_PROTOCOL is `grpc`").count(), 1, "{log}");
    assert!(collector.spans.lock().unwrap().is_empty());
}
