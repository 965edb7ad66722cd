//! The metric catalogue: every name, label and help text, registered once per process. Names are a contract.
//!
//! Counters are added once per batch. Labels never hold ids; every known series exists at 0 from the start.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::domain::action::Action;
use crate::domain::held::HeldReason;

const HTTP_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const COMMIT_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const BATCH_BUCKETS: &[f64] = &[1.0, 10.0, 100.0, 1000.0, 2500.0, 5000.0, 10000.0];
const AGE_BUCKETS: &[f64] = &[0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0, 3600.0];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// `streamview_events_total{view,type}`: events applied, by type; unknown types count as `unknown`.
    pub events: IntCounterVec,
    /// `streamview_unknown_events_total{view}`: events of a type that the view does not know, applied as a no-op.
    pub unknown_events: IntCounterVec,
    /// `streamview_duplicates_total{view,reason}`.
    pub duplicates: IntCounterVec,
    /// `streamview_out_of_order_total{view,reason}`.
    pub out_of_order: IntCounterVec,
    /// `streamview_dead_letters_total{view,reason}`.
    pub dead_letters: IntCounterVec,
    /// `streamview_decisions_total{view,action}`: operators' decisions made through this process.
    pub decisions: IntCounterVec,
    /// `streamview_registry_requests_total{view,result}`: schemas asked for, and what came back.
    pub registry_requests: IntCounterVec,
    /// `streamview_anomalies_total{view}`: applied events with odd content.
    pub anomalies: IntCounterVec,
    /// `streamview_odd_record_times_total{view}`: records whose time cannot be stored and shown.
    pub odd_record_times: IntCounterVec,
    /// `streamview_decisions_taken_total{view,action}`: operators' decisions that a batch folded with.
    pub decisions_taken: IntCounterVec,
    /// `streamview_records_consumed_total{view}`.
    pub consumed: IntCounterVec,
    /// `streamview_fenced_total{view}`: batches refused because another instance owns the partition.
    pub fenced: IntCounterVec,
    /// `streamview_rebalances_total{view}`.
    pub rebalances: IntCounterVec,
    /// `streamview_upserts_duration_seconds{view}`: from the first statement of a batch to its commit.
    pub upserts_duration: HistogramVec,
    /// `streamview_batch_records{view}`.
    pub batch_records: HistogramVec,
    /// `streamview_event_age_seconds{view}`: from the record's timestamp to visible in the view.
    pub event_age: HistogramVec,
    /// `kafka_consumer_lag{group,topic,partition}`.
    pub consumer_lag: IntGaugeVec,
    /// `kafka_consumer_lag_seconds{group,topic,partition}`.
    pub consumer_lag_seconds: GaugeVec,
    /// `streamview_next_offset{group,topic,partition}`: the first offset that is not applied yet.
    pub next_offset: IntGaugeVec,
    /// `streamview_consumer_state{view,state}`: 1 for the current state.
    pub consumer_state: IntGaugeVec,
    /// `streamview_partitions_paused{view,reason}`: owned partitions that nothing is read from.
    pub partitions_paused: IntGaugeVec,
    /// `streamview_view_paused{view}`: 1 while an operator has the view stand still.
    pub view_paused: IntGaugeVec,
    /// `streamview_held_keys{view,reason}`.
    pub held_keys: IntGaugeVec,
    /// `streamview_proven_gaps{view}`: held keys whose missing event is not in the log.
    pub proven_gaps: IntGaugeVec,
    /// `streamview_parked_events{view}`.
    pub parked_events: IntGaugeVec,
    /// `streamview_dead_letters_unpublished{view}`.
    pub dead_letters_unpublished: IntGaugeVec,
    /// `streamview_conservation_difference{view}`: consumed minus everything accounted for; anything but 0 is a bug.
    pub conservation_difference: IntGaugeVec,
    /// `streamview_configuration_differs{view}`: 1 if something else is configured than the active build is made by.
    pub configuration_differs: IntGaugeVec,
    /// `streamview_cache_bytes{view}`.
    pub cache_bytes: IntGaugeVec,
    /// `http_requests_duration_seconds{method,route,status}`.
    pub http_requests: HistogramVec,
    /// `streamview_rate_limited_total{limit}`: calls refused because their caller had made too many.
    pub rate_limited: IntCounterVec,
    /// `streamview_streams{state}`: streams of the stream manager, by what is seen of them.
    pub streams: IntGaugeVec,
    /// `streamview_queries`: queries of those who look that run now in this process.
    pub queries: IntGauge,
    /// `streamview_engine_calls_total{engine,call,outcome}`: calls of stream engines, and what came of them.
    pub engine_calls: IntCounterVec,
    /// Deployed queries of the embedded engine that run in this process.
    pub deployed_queries: QueryMetrics,
    /// `streamview_waiters`: requests waiting for their own write.
    pub waiters: IntGauge,
    /// `streamview_followers`: clients that follow changes.
    pub followers: IntGauge,
    /// `streamview_hub_connections`: clients that are connected to the hub.
    pub hub_connections: IntGauge,
    /// `streamview_followers_overrun_total`: those that were too slow.
    pub overruns: IntCounter,
    /// `streamview_http_certificate_end_seconds`: Unix time at which the listener's certificate is over; 0 without TLS.
    pub certificate_end: IntGauge,
    /// `streamview_db_pool_connections{state}`.
    pub pool_connections: IntGaugeVec,
    /// `streamview_process_start_time_seconds`.
    pub start_time: Gauge,
}

/// What deployed queries of the embedded engine do.
pub struct QueryMetrics {
    /// `streamview_query_records{query,outcome}`: what has become of records since the job began in this process.
    pub records: IntGaugeVec,
    /// `streamview_query_state_bytes{query}`: what each of them holds.
    pub state_bytes: IntGaugeVec,
    /// `streamview_query_watermark_lag_seconds{query}`: how far behind the clock the time is up to which windows are closed.
    pub watermark_lag: GaugeVec,
}

impl QueryMetrics {
    fn new(registry: &Registry) -> QueryMetrics {
        let records = Opts::new("streamview_query_records", "Records of queries in this process.");
        let state_bytes = Opts::new("streamview_query_state_bytes", "State of queries in this process.");
        let watermark_lag = Opts::new("streamview_query_watermark_lag_seconds", "How late windows are closed.");
        QueryMetrics {
            records: register(registry, IntGaugeVec::new(records, &["query", "outcome"])),
            state_bytes: register(registry, IntGaugeVec::new(state_bytes, &["query"])),
            watermark_lag: register(registry, GaugeVec::new(watermark_lag, &["query"])),
        }
    }
}

/// What can become of a question to the schema registry.
const REGISTRY_RESULTS: [&str; 7] = ["ok", "unreachable", "denied", "failing", "foreign", "not_found", "rejected"];
/// Reasons of `streamview_duplicates_total`.
pub const DUPLICATE_REASONS: [&str; 2] = ["sequence", "event_id"];
/// Reasons of `streamview_out_of_order_total`.
pub const OUT_OF_ORDER_REASONS: [&str; 2] = ["late", "gap"];

impl Metrics {
    /// Registers the whole catalogue.
    ///
    /// # Panics
    /// Never for a fixed catalogue: a duplicate or malformed name would be caught by its unit test.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let float_gauge =
            |name: &str, help: &str, labels: &[&str]| register(&registry, GaugeVec::new(Opts::new(name, help), labels));
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(&registry, HistogramVec::new(options, labels))
        };
        let (by_view, by_reason, by_action) = (&["view"][..], &["view", "reason"][..], &["view", "action"][..]);
        let by_partition = &["group", "topic", "partition"][..];
        build_info(&registry);
        register(&registry, Ok(spans().clone()));
        Metrics {
            events: counter("streamview_events_total", "Events applied to the view.", &["view", "type"]),
            unknown_events: counter("streamview_unknown_events_total", "Events of unknown type.", by_view),
            duplicates: counter("streamview_duplicates_total", "Events already applied.", &["view", "reason"]),
            out_of_order: counter("streamview_out_of_order_total", "Late or ahead of a gap.", by_reason),
            dead_letters: counter("streamview_dead_letters_total", "Records refused.", &["view", "reason"]),
            decisions: counter("streamview_decisions_total", "Decisions of operators.", &["view", "action"]),
            registry_requests: counter("streamview_registry_requests_total", "Schemas asked for.", &["view", "result"]),
            anomalies: counter("streamview_anomalies_total", "Events applied although odd.", &["view"]),
            odd_record_times: counter("streamview_odd_record_times_total", "Records of no calendar's time.", by_view),
            decisions_taken: counter("streamview_decisions_taken_total", "Decisions that took effect.", by_action),
            consumed: counter("streamview_records_consumed_total", "Records consumed and committed.", &["view"]),
            fenced: counter("streamview_fenced_total", "Batches of a lost partition.", &["view"]),
            rebalances: counter("streamview_rebalances_total", "Assignments and revocations.", &["view"]),
            upserts_duration: histogram(
                "streamview_upserts_duration_seconds",
                "Time of a batch in Postgres.",
                by_view,
                COMMIT_BUCKETS,
            ),
            batch_records: histogram("streamview_batch_records", "Records in one batch.", &["view"], BATCH_BUCKETS),
            event_age: histogram(
                "streamview_event_age_seconds",
                "From record timestamp to visible, newest record of a batch.",
                &["view"],
                AGE_BUCKETS,
            ),
            consumer_lag: gauge("kafka_consumer_lag", "Records not applied yet.", by_partition),
            consumer_lag_seconds: float_gauge("kafka_consumer_lag_seconds", "Age of the oldest of them.", by_partition),
            next_offset: gauge("streamview_next_offset", "First offset not applied yet.", by_partition),
            consumer_state: gauge("streamview_consumer_state", "1 for the current state.", &["view", "state"]),
            partitions_paused: gauge("streamview_partitions_paused", "Owned, but not read.", by_reason),
            view_paused: gauge("streamview_view_paused", "1 while an operator has it stand still.", by_view),
            held_keys: gauge("streamview_held_keys", "Keys waiting for an event.", &["view", "reason"]),
            proven_gaps: gauge("streamview_proven_gaps", "Held keys whose event is not in the log.", &["view"]),
            parked_events: gauge("streamview_parked_events", "Events parked behind a missing one.", &["view"]),
            dead_letters_unpublished: gauge("streamview_dead_letters_unpublished", "Letters to publish.", by_view),
            conservation_difference: gauge(
                "streamview_conservation_difference",
                "Records unaccounted for; not 0 is a bug.",
                &["view"],
            ),
            configuration_differs: gauge("streamview_configuration_differs", "1: the build keeps others.", by_view),
            cache_bytes: gauge("streamview_cache_bytes", "Estimated bytes of cached keys.", &["view"]),
            http_requests: http_requests(&registry),
            streams: gauge("streamview_streams", "Streams of the stream manager.", &["state"]),
            queries: register(&registry, IntGauge::new("streamview_queries", "Queries of those who look that run.")),
            engine_calls: engine_calls(&registry),
            deployed_queries: QueryMetrics::new(&registry),
            rate_limited: counter("streamview_rate_limited_total", "Calls beyond a limit.", &["limit"]),
            waiters: register(&registry, IntGauge::new("streamview_waiters", "Requests waiting for a write.")),
            followers: register(&registry, IntGauge::new("streamview_followers", "Clients that follow changes.")),
            hub_connections: hub_connections(&registry),
            overruns: overruns(&registry),
            certificate_end: certificate_end(&registry),
            pool_connections: gauge("streamview_db_pool_connections", "Read pool connections.", &["state"]),
            start_time: start_time(&registry),
            registry,
        }
    }

    /// Makes every series of `view` exist at 0.
    pub fn prepare_view(&self, view: &str, event_types: &[impl AsRef<str>], poison_reasons: &[&str]) {
        for event_type in event_types.iter().map(AsRef::as_ref).chain(["unknown"]) {
            self.events.with_label_values(&[view, event_type]);
        }
        for reason in DUPLICATE_REASONS {
            self.duplicates.with_label_values(&[view, reason]);
        }
        for reason in OUT_OF_ORDER_REASONS {
            self.out_of_order.with_label_values(&[view, reason]);
        }
        for reason in poison_reasons {
            self.dead_letters.with_label_values(&[view, reason]);
        }
        for result in REGISTRY_RESULTS {
            self.registry_requests.with_label_values(&[view, result]);
        }
        for reason in HeldReason::WORDS {
            self.held_keys.with_label_values(&[view, reason]);
        }
        for code in crate::status::Pause::CODES {
            self.partitions_paused.with_label_values(&[view, code]);
        }
        for action in Action::ALL.map(Action::as_str) {
            self.decisions.with_label_values(&[view, action]);
            self.decisions_taken.with_label_values(&[view, action]);
        }
        for state in crate::status::ViewState::NAMES {
            self.consumer_state.with_label_values(&[view, state]);
        }
        for counter in [
            &self.unknown_events,
            &self.anomalies,
            &self.odd_record_times,
            &self.consumed,
            &self.fenced,
            &self.rebalances,
        ] {
            counter.with_label_values(&[view]);
        }
        for gauge in [
            &self.parked_events,
            &self.proven_gaps,
            &self.dead_letters_unpublished,
            &self.conservation_difference,
            &self.configuration_differs,
            &self.view_paused,
            &self.cache_bytes,
        ] {
            gauge.with_label_values(&[view]);
        }
        for histogram in [&self.upserts_duration, &self.batch_records, &self.event_age] {
            histogram.with_label_values(&[view]);
        }
    }

    /// Has what is counted of views begin anew: every series is there, at 0. Nobody keeps a series to count by.
    pub fn begin_anew(&self) {
        for counter in [
            &self.events,
            &self.unknown_events,
            &self.duplicates,
            &self.out_of_order,
            &self.dead_letters,
            &self.decisions,
            &self.decisions_taken,
            &self.registry_requests,
            &self.anomalies,
            &self.odd_record_times,
            &self.consumed,
            &self.fenced,
            &self.rebalances,
        ] {
            make_anew(counter);
        }
        for histogram in [&self.upserts_duration, &self.batch_records, &self.event_age] {
            make_anew(histogram);
        }
    }

    /// The text exposition format, version 0.0.4: what the process counts, and what `builds` count of their views.
    pub fn render(&self, builds: &[Arc<Metrics>]) -> Result<Vec<u8>, prometheus::Error> {
        let own = self.registry.gather().into_iter();
        let mut families: BTreeMap<String, MetricFamily> =
            own.map(|family| (family.name().to_owned(), family)).collect();
        for mut family in builds.iter().flat_map(|build| build.registry.gather()) {
            let of_views: Vec<Metric> = family.take_metric().into_iter().filter(is_of_a_view).collect();
            match families.entry(family.name().to_owned()) {
                Entry::Vacant(vacant) if !of_views.is_empty() => {
                    family.set_metric(of_views);
                    vacant.insert(family);
                }
                Entry::Vacant(_) => {}
                Entry::Occupied(mut known) => add(known.get_mut(), of_views),
            }
        }
        let mut text = Vec::new();
        let families: Vec<MetricFamily> = families.into_values().collect();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Builds have all of the catalogue; what has no view is the process's.
fn is_of_a_view(metric: &Metric) -> bool {
    metric.get_label().iter().any(|label| matches!(label.name(), "view" | "group"))
}

/// The same series, at 0.
fn make_anew<B: MetricVecBuilder>(series: &MetricVec<B>) {
    let known = series.collect();
    series.reset();
    for metric in known.iter().flat_map(MetricFamily::get_metric) {
        let labels: HashMap<&str, &str> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        series.with(&labels);
    }
}

/// Adds series; counters of the same labels are one.
fn add(family: &mut MetricFamily, more: Vec<Metric>) {
    let is_counter = family.get_field_type() == MetricType::COUNTER;
    let mut metrics = family.take_metric();
    for mut metric in more {
        let known = metrics.iter().position(|known| known.get_label() == metric.get_label());
        if let Some(known) = known.map(|place| metrics.swap_remove(place)).filter(|_| is_counter) {
            let mut sum = metric.get_counter().clone();
            sum.set_value(sum.get_value() + known.get_counter().get_value());
            metric.set_counter(sum);
        }
        metrics.push(metric);
    }
    family.set_metric(metrics);
}

/// Results of `streamview_spans_total`.
pub const SENT: &str = "sent";
/// Results of `streamview_spans_total`.
pub const LOST: &str = "lost";

/// `streamview_spans_total{result}`: spans of traces that a collector has taken, or that are lost as it does not. It is the
/// process's, as its traces are; every catalogue shows the same.
pub fn spans() -> &'static IntCounterVec {
    static SPANS: LazyLock<IntCounterVec> = LazyLock::new(|| {
        let options = Opts::new("streamview_spans_total", "Spans of traces that were sent, or could not be.");
        let spans = IntCounterVec::new(options, &["result"]).expect("its name and label are valid");
        for result in [SENT, LOST] {
            spans.with_label_values(&[result]);
        }
        spans
    });
    &SPANS
}

fn overruns(registry: &Registry) -> IntCounter {
    register(registry, IntCounter::new("streamview_followers_overrun_total", "Followers that were too slow."))
}

fn engine_calls(registry: &Registry) -> IntCounterVec {
    let options = Opts::new("streamview_engine_calls_total", "Calls of stream engines.");
    register(registry, IntCounterVec::new(options, &["engine", "call", "outcome"]))
}

fn build_info(registry: &Registry) {
    let options = Opts::new("streamview_build_info", "Version of this binary.");
    let build_info = register(registry, IntGaugeVec::new(options, &["version"]));
    build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
}

fn hub_connections(registry: &Registry) -> IntGauge {
    register(registry, IntGauge::new("streamview_hub_connections", "Clients that are connected to the hub."))
}

fn certificate_end(registry: &Registry) -> IntGauge {
    register(registry, IntGauge::new("streamview_http_certificate_end_seconds", "Unix time of the certificate's end."))
}

fn start_time(registry: &Registry) -> Gauge {
    let gauge = register(registry, Gauge::new("streamview_process_start_time_seconds", "Unix time of the start."));
    gauge.set(jiff::Timestamp::now().as_millisecond() as f64 / 1000.0);
    gauge
}

fn http_requests(registry: &Registry) -> HistogramVec {
    let options = HistogramOpts::new("http_requests_duration_seconds", "Time to answer an HTTP request.");
    register(registry, HistogramVec::new(options.buckets(HTTP_BUCKETS.to_vec()), &["method", "route", "status"]))
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("the catalogue's names and labels are valid");
    registry.register(Box::new(collector.clone())).expect("the catalogue names each metric once");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_of_a_view_exists_at_zero() {
        let metrics = Metrics::new();
        metrics.prepare_view("orders", &["OrderCreated"], &["invalid_json"]);
        let text = String::from_utf8(Metrics::new().render(&[Arc::new(metrics)]).unwrap()).unwrap();
        for series in [
            r#"streamview_events_total{type="OrderCreated",view="orders"} 0"#,
            r#"streamview_duplicates_total{reason="event_id",view="orders"} 0"#,
            r#"streamview_out_of_order_total{reason="gap",view="orders"} 0"#,
            r#"streamview_dead_letters_total{reason="invalid_json",view="orders"} 0"#,
        ] {
            assert!(text.contains(series), "{series} is missing from\n{text}");
        }
    }

    #[test]
    fn what_is_counted_of_a_view_begins_anew_and_its_gauges_stay() {
        let metrics = Metrics::new();
        metrics.prepare_view("orders", &["OrderCreated"], &["invalid_json"]);
        metrics.events.with_label_values(&["orders", "OrderCreated"]).inc_by(7);
        metrics.batch_records.with_label_values(&["orders"]).observe(7.0);
        metrics.parked_events.with_label_values(&["orders"]).set(7);
        let render = || String::from_utf8(metrics.render(&[]).unwrap()).unwrap();
        let before = render();

        metrics.begin_anew();

        for line in [
            r#"streamview_events_total{type="OrderCreated",view="orders"} 0"#,
            r#"streamview_batch_records_count{view="orders"} 0"#,
            r#"streamview_batch_records_bucket{view="orders",le="10"} 0"#,
            r#"streamview_parked_events{view="orders"} 7"#,
        ] {
            assert!(render().lines().any(|other| other == line), "{line} in {}", render());
        }
        assert_eq!(render().lines().count(), before.lines().count(), "every series is there");
    }

    #[test]
    fn what_builds_count_is_added_to_what_the_process_counts() {
        let (process, first, second) = (Metrics::new(), Metrics::new(), Metrics::new());
        process.waiters.set(3);
        for (metrics, view, decisions) in [(&process, "orders", 2), (&first, "orders", 5), (&second, "counter", 1)] {
            metrics.decisions.with_label_values(&[view, "skip"]).inc_by(decisions);
        }
        first.held_keys.with_label_values(&["orders", "gap"]).set(4);
        let text = String::from_utf8(process.render(&[Arc::new(first), Arc::new(second)]).unwrap()).unwrap();
        for line in [
            r#"streamview_decisions_total{action="skip",view="orders"} 7"#,
            r#"streamview_decisions_total{action="skip",view="counter"} 1"#,
            r#"streamview_held_keys{reason="gap",view="orders"} 4"#,
            "streamview_waiters 3",
        ] {
            assert_eq!(text.lines().filter(|other| *other == line).count(), 1, "{line} in\n{text}");
        }
        assert_eq!(text.matches("\nstreamview_process_start_time_seconds ").count(), 1);
    }
}
