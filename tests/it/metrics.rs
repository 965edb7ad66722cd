//! The exposition: every promised metric is there from the start, and Prometheus can read it.

use std::collections::{BTreeMap, BTreeSet};

use crate::rest::header;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, life};
use crate::support::world::World;

/// How many series of a metric have these labels.
pub async fn series(instance: &Instance, name: &str, labels: &[&str]) -> usize {
    let text = instance.get("/metrics").await.text().await.unwrap();
    let matching = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    matching.filter(|line| labels.iter().all(|label| line.contains(label))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promised_metric_is_there_at_zero_from_the_start_in_valid_exposition() {
    let world = World::new(1).await;
    let instance = world.start().await;

    let response = instance.get("/metrics").await;
    assert_eq!(header(&response, "content-type"), "text/plain; version=0.0.4");
    let text = response.text().await.unwrap();
    let exposition = Exposition::parse(&text).unwrap();

    for (name, labels) in [
        (
            "streamview_events_total",
            &["type=OrderCreated", "type=OrderItemAdded", "type=OrderStatusChanged", "type=unknown"][..],
        ),
        ("streamview_duplicates_total", &["reason=sequence", "reason=event_id"]),
        ("streamview_out_of_order_total", &["reason=late", "reason=gap"]),
        ("streamview_unknown_events_total", &["view=orders"]),
        (
            "streamview_dead_letters_total",
            &["reason=invalid_json", "reason=null_key", "reason=event_id_reused", "reason=sequence_conflict"],
        ),
        ("streamview_held_keys", &["reason=gap", "reason=poison", "reason=event_id_reused"]),
        ("streamview_parked_events", &["view=orders"]),
        ("streamview_dead_letters_unpublished", &["view=orders"]),
        ("streamview_conservation_difference", &["view=orders"]),
        ("streamview_anomalies_total", &["view=orders"]),
        ("streamview_records_consumed_total", &["view=orders"]),
        ("streamview_fenced_total", &["view=orders"]),
        ("streamview_upserts_duration_seconds_count", &["view=orders"]),
        ("streamview_event_age_seconds_count", &["view=orders"]),
        ("streamview_batch_records_count", &["view=orders"]),
        ("streamview_consumer_state", &["state=halted", "state=waiting_for_kafka", "state=waiting_for_database"]),
        ("streamview_waiters", &[""]),
        ("streamview_followers", &[""]),
        ("streamview_followers_overrun_total", &[""]),
    ] {
        for label in labels {
            assert_eq!(exposition.value(name, label), Some(0.0), "{name}{{{label}}}");
        }
    }
    assert_eq!(exposition.value("streamview_consumer_state", "state=running"), Some(1.0));
    assert_eq!(exposition.value("streamview_build_info", &format!("version={}", env!("CARGO_PKG_VERSION"))), Some(1.0));
    for name in [
        "http_requests_duration_seconds_count",
        "streamview_db_pool_connections",
        "streamview_process_start_time_seconds",
    ] {
        assert!(exposition.value(name, "").is_some(), "{name}");
    }
    // After traffic it is still valid, and labels hold no ids.
    world.publish(life("o-1", 4).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    for path in ["/orders", "/orders/o-1", "/orders/o-2", "/no-such-page", "/orders/o-1/events"] {
        instance.get(path).await;
    }
    instance.until_metric("streamview_events_total", &["type=\"OrderCreated\""], 1.0).await;
    instance.until_metric("streamview_next_offset", &["partition=\"0\""], 4.0).await;
    let text = instance.get("/metrics").await.text().await.unwrap();
    let exposition = Exposition::parse(&text).unwrap();
    assert!(exposition.value("http_requests_duration_seconds_count", "route=/orders/{orderId}").unwrap() >= 1.0);
    assert_eq!(exposition.value("http_requests_duration_seconds_count", "route=unmatched"), Some(1.0));
    assert!(!text.contains("o-1") && !text.contains("no-such-page"));
}

/// A page of Prometheus' text format, read strictly.
struct Exposition {
    /// Value by name and `label=value` pairs.
    samples: BTreeMap<(String, Vec<String>), f64>,
}

impl Exposition {
    /// Sum of the series of `name` that have `label` (`name=value`; empty: any).
    fn value(&self, name: &str, label: &str) -> Option<f64> {
        let matching = self.samples.iter().filter(|((other, labels), _)| {
            other == name && (label.is_empty() || labels.iter().any(|pair| pair == label))
        });
        matching.map(|(_, value)| *value).reduce(|sum, value| sum + value)
    }

    fn parse(text: &str) -> Result<Exposition, String> {
        let (mut types, mut helped): (BTreeMap<&str, &str>, BTreeSet<&str>) = Default::default();
        let mut samples = BTreeMap::new();
        let (mut family, mut finished) = ("", BTreeSet::new());
        if !text.ends_with('\n') {
            return Err("the last line is not ended".into());
        }
        for line in text.lines() {
            let fault = |what: &str| Err(format!("{what}: {line}"));
            if let Some(help) = line.strip_prefix("# HELP ") {
                let Some((name, words)) = help.split_once(' ') else { return fault("no help") };
                if words.trim().is_empty() || !helped.insert(name) {
                    return fault("empty or repeated help");
                }
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let Some((name, kind)) = kind.split_once(' ') else { return fault("no type") };
                if !matches!(kind, "counter" | "gauge" | "histogram")
                    || types.insert(name, kind).is_some()
                    || !helped.contains(name)
                {
                    return fault("unknown or repeated type, or no help before it");
                }
                if kind == "counter" && !name.ends_with("_total") {
                    return fault("a counter is not called _total");
                }
                finished.insert(std::mem::replace(&mut family, name));
            } else {
                let Some((series, value)) = line.rsplit_once(' ') else { return fault("no value") };
                let Ok(value) = value.parse::<f64>() else { return fault("not a number") };
                let (name, labels) = match series.split_once('{') {
                    Some((name, labels)) => (name, labels_of(labels.strip_suffix('}').ok_or("no closing brace")?)?),
                    None => (series, Vec::new()),
                };
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                let of_family = name == family || (types.get(family) == Some(&"histogram") && base == Some(family));
                if !of_family || finished.contains(family) {
                    return fault("not of the family above it");
                }
                if samples.insert((name.to_owned(), labels), value).is_some() {
                    return fault("series twice");
                }
            }
        }
        let exposition = Exposition { samples };
        exposition.check_histograms(&types)?;
        Ok(exposition)
    }

    fn check_histograms(&self, types: &BTreeMap<&str, &str>) -> Result<(), String> {
        for (family, _) in types.iter().filter(|(_, kind)| **kind == "histogram") {
            let counts = self.samples.iter().filter(|((name, _), _)| *name == format!("{family}_count"));
            for ((_, labels), count) in counts {
                let mut buckets: Vec<(f64, f64)> = Vec::new();
                for ((name, other), value) in &self.samples {
                    let rest: Vec<&String> = other.iter().filter(|pair| !pair.starts_with("le=")).collect();
                    if *name == format!("{family}_bucket") && rest == labels.iter().collect::<Vec<_>>() {
                        let bound =
                            other.iter().find_map(|pair| pair.strip_prefix("le=")).ok_or("bucket without le")?;
                        buckets.push((bound.parse().map_err(|_| format!("bound {bound}"))?, *value));
                    }
                }
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                let grows = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
                let whole = buckets.last().is_some_and(|(bound, value)| bound.is_infinite() && value == count);
                let summed = self.samples.contains_key(&(format!("{family}_sum"), labels.clone()));
                if !grows || !whole || !summed {
                    return Err(format!("histogram {family}{labels:?} is not cumulative or not complete"));
                }
            }
        }
        Ok(())
    }
}

/// `a="1",b="2"` as `a=1`, `b=2`, sorted.
fn labels_of(text: &str) -> Result<Vec<String>, String> {
    let mut labels = Vec::new();
    for pair in text.split("\",") {
        let (name, value) = pair.split_once("=\"").ok_or_else(|| format!("label {pair}"))?;
        let value = value.strip_suffix('"').unwrap_or(value);
        let fine = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !fine || value.contains(['"', '\n']) {
            return Err(format!("label {pair}"));
        }
        labels.push(format!("{name}={value}"));
    }
    labels.sort();
    Ok(labels)
}

#[test]
fn the_exposition_parser_refuses_what_prometheus_would() {
    let fine = "# HELP a_total A.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n";
    assert_eq!(Exposition::parse(fine).unwrap().value("a_total", "b=c"), Some(1.0));
    for (from, to) in [
        ("} 1\n", "} one\n"),
        ("} 1\n", "} 1"),
        ("# HELP a_total A.\n", ""),
        ("counter", "thing"),
        ("a_total", "a"),
        ("a_total{b=\"c\"} 1\n", "a_total{b=\"c\"} 1\na_total{b=\"c\"} 1\n"),
        ("a_total{", "other_total{"),
        ("{b=\"c\"", "{b=c"),
    ] {
        assert!(Exposition::parse(&fine.replace(from, to)).is_err(), "{from} -> {to}");
    }
    let histogram = |buckets: &str| format!("# HELP h H.\n# TYPE h histogram\n{buckets}h_sum 1\nh_count 2\n");
    assert!(Exposition::parse(&histogram("h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n")).is_ok());
    assert!(Exposition::parse(&histogram("h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\n")).is_err());
    assert!(Exposition::parse(&histogram("h_bucket{le=\"1\"} 1\n")).is_err());
}
