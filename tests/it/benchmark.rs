//! The pure parts of the benchmark, which has no test harness of its own: its workloads and how results are compared.

#[path = "../../benches/end_to_end/results/mod.rs"]
#[allow(dead_code, reason = "the benchmark uses all of it")]
mod results;
#[path = "../../benches/end_to_end/workload/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the benchmark uses all of it")]
mod workload;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use results::comparison::{Verdict, compare};
use results::{Better, Figure, Results};
use workload::{Event, Expected, Ids, Shape, Workload};

fn results(figures: &[(&str, Figure)]) -> Results {
    Results {
        conditions: BTreeMap::from([("cores".to_owned(), "2".to_owned())]),
        figures: figures.iter().map(|(name, figure)| ((*name).to_owned(), figure.clone())).collect(),
    }
}

fn judged(better: Better, values: &[f64]) -> Figure {
    Figure::of("us/event", better, true, values.to_vec()).unwrap()
}

#[test]
fn a_figure_is_the_median_and_the_spread_of_its_runs() {
    let odd = judged(Better::Less, &[3.0, 1.0, 2.0]);
    assert_eq!((odd.median, odd.least, odd.greatest), (2.0, 1.0, 3.0));
    assert_eq!(judged(Better::Less, &[1.0, 2.0]).median, 1.5);
    assert_eq!(Figure::of("", Better::Less, true, Vec::new()), None);
}

#[test]
fn a_regression_is_more_than_a_tenth_in_the_wrong_direction() {
    use Verdict::{Improvement, Regression, Steady};
    let cases = [
        (Better::Less, 10.0, 11.2, Regression),
        (Better::Less, 10.0, 10.9, Steady),
        (Better::Less, 10.0, 8.8, Improvement),
        (Better::More, 10.0, 8.8, Regression),
        (Better::More, 10.0, 9.1, Steady),
        (Better::More, 10.0, 11.2, Improvement),
        (Better::Less, 0.0, 0.0, Steady),
        (Better::Less, 0.0, 1.0, Regression),
    ];
    for (better, then, now, verdict) in cases {
        let (before, after) =
            (results(&[("cost", judged(better, &[then]))]), results(&[("cost", judged(better, &[now]))]));
        let comparison = compare(&before, &after);
        assert_eq!(comparison.changes[0].verdict, verdict, "{better:?}: {then} -> {now}");
        assert_eq!(comparison.has_regressions(), verdict == Regression);
    }
}

#[test]
fn rates_and_latencies_inform_and_are_never_a_regression() {
    let rate = |value| Figure::of("/s", Better::More, false, vec![value]).unwrap();
    let (before, now) = (results(&[("rate", rate(100.0))]), results(&[("rate", rate(50.0))]));
    let comparison = compare(&before, &now);
    assert_eq!(comparison.changes[0].verdict, Verdict::Informs);
    assert!(comparison.to_string().contains("-50 %"), "{comparison}");
}

#[test]
fn a_regression_is_named_with_both_figures_and_the_doubt_about_it() {
    let before = results(&[("backlog: CPU", judged(Better::Less, &[10.0, 10.0, 13.0]))]);
    let now = results(&[("backlog: CPU", judged(Better::Less, &[11.0, 12.0, 14.0]))]);
    let text = compare(&before, &now).to_string();
    let named = "REGRESSIONS of more than 10 %: 1\n  backlog: CPU: 10.00 -> 12.00 us/event, 20 %; \
                 the spreads overlap, so it may be chance";
    assert!(text.contains(named), "{text}");
    let clear = results(&[("backlog: CPU", judged(Better::Less, &[20.0]))]);
    let text = compare(&before, &clear).to_string();
    assert!(text.contains("10.00 -> 20.00 us/event, 100 %\n"), "{text}");
}

#[test]
fn under_other_conditions_nothing_is_called_a_regression() {
    let before = results(&[("cost", judged(Better::Less, &[10.0]))]);
    let mut now = results(&[("cost", judged(Better::Less, &[30.0]))]);
    now.conditions.insert("cores".to_owned(), "64".to_owned());
    now.conditions.insert("STREAMVIEW_PROJECTOR__LANES".to_owned(), "3".to_owned());
    let comparison = compare(&before, &now);
    assert!(!comparison.has_regressions());
    let differing = [("STREAMVIEW_PROJECTOR__LANES", "not set", "3"), ("cores", "2", "64")];
    assert_eq!(comparison.differing, differing);
    let text = comparison.to_string();
    assert!(text.contains("The conditions differ") && !text.contains("REGRESSIONS"), "{text}");
}

#[test]
fn what_was_not_measured_is_said_and_kept() {
    let before = results(&[("cost", judged(Better::Less, &[10.0])), ("slow", judged(Better::Less, &[1.0]))]);
    let now = results(&[("cost", judged(Better::Less, &[9.5])), ("fresh", judged(Better::Less, &[2.0]))]);
    assert_eq!(compare(&before, &now).not_measured, BTreeSet::from(["slow"]));
    let saved = now.clone().completed_by(before.clone());
    assert_eq!(saved.figures.keys().collect::<Vec<_>>(), ["cost", "fresh", "slow"]);
    assert_eq!(saved.figures["cost"].median, 9.5);
    let elsewhere = Results { conditions: BTreeMap::new(), ..now };
    assert!(!elsewhere.completed_by(before).figures.contains_key("slow"), "figures of two machines do not mix");
}

#[test]
fn a_section_that_was_not_measured_is_named_once() {
    let one = || judged(Better::Less, &[10.0]);
    let before = results(&[("live: p50", one()), ("live: p99", one()), ("idle: CPU", one()), ("idle: RSS", one())]);
    let now = results(&[("idle: CPU", one())]);
    assert_eq!(compare(&before, &now).not_measured, BTreeSet::from(["idle: RSS", "live"]));
}

#[test]
fn a_result_survives_its_file() {
    let saved = results(&[("cost", judged(Better::Less, &[10.0, 1.0 / 3.0]))]);
    let text = serde_json::to_string_pretty(&saved).unwrap();
    assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), saved);
}

const WORKLOADS: [Workload; 5] = [
    Workload::Ascending { orders: 3_000, each: 3 },
    Workload::Ascending { orders: 20, each: 300 },
    Workload::Ascending { orders: 3_000, each: 1 },
    Workload::Scattered { orders: 3_000, each: 3 },
    Workload::Hot { orders: 3_000, events: 9_000 },
];

#[test]
fn a_workload_is_the_same_each_time_and_numbers_each_order_without_gap() {
    for workload in WORKLOADS {
        let events: Vec<Event> = workload.events().collect();
        assert!(events == workload.events().collect::<Vec<_>>(), "{workload:?}");
        let mut last: HashMap<u64, u64> = HashMap::new();
        let mut payloads = BTreeSet::new();
        for event in events {
            let sequence = last.entry(event.order).or_default();
            assert_eq!(event.sequence, *sequence + 1, "{workload:?}: {event:?}");
            *sequence += 1;
            let value: serde_json::Value = serde_json::from_str(&event.payload(Shape::default())).unwrap();
            assert!(payloads.insert(value["eventId"].as_str().unwrap().to_owned()), "{workload:?}: {event:?}");
        }
    }
}

#[test]
fn the_oracle_counts_what_the_workload_is_said_to_be() {
    for workload in WORKLOADS {
        let expected = Expected::of(workload);
        let (orders, events) = match workload {
            Workload::Ascending { orders, each } | Workload::Scattered { orders, each } => (orders, orders * each),
            Workload::Hot { events, .. } => (expected.orders as u64, events),
        };
        assert_eq!((expected.orders, expected.events), (orders as i64, events as i64), "{workload:?}");
        assert_eq!(expected.statuses.values().sum::<i64>(), expected.orders, "{workload:?}");
    }
    let [ascending, .., scattered, _] = WORKLOADS;
    assert_eq!(Expected::of(ascending), Expected::of(scattered), "other ids, but all of them");
}

#[test]
fn hot_orders_have_most_of_the_events() {
    let mut counts: HashMap<u64, u64> = HashMap::new();
    for event in (Workload::Hot { orders: 3_000, events: 9_000 }).events() {
        *counts.entry(event.order).or_default() += 1;
    }
    let mut counts: Vec<u64> = counts.into_values().collect();
    counts.sort_unstable();
    let hottest: u64 = counts.iter().rev().take(30).sum();
    assert!((3_500..6_500).contains(&hottest), "1 % of the orders have {hottest} of 9000 events");
}

#[test]
fn an_order_has_the_lines_and_the_ids_that_are_asked_for() {
    let created = Workload::plain(3).events().next().unwrap();
    let value = |shape| serde_json::from_str::<serde_json::Value>(&created.payload(shape)).unwrap();
    for lines in [0, 1, 3] {
        let shape = Shape { lines, ..Shape::default() };
        assert_eq!(value(shape)["items"].as_array().unwrap().len() as u64, lines);
        let expected = Expected::with(Workload::plain(1_000), shape);
        assert_eq!((expected.items, expected.orders), (1_000 * lines as i64, 1_000));
        let one = Expected::of(Workload::plain(1_000));
        assert_eq!(expected.net_cents, one.net_cents * lines as i64);
    }
    let sequential = Shape { ids: Ids::Sequential, ..Shape::default() };
    assert_eq!(value(sequential)["eventId"], "order-0-event-1");
    assert_eq!(value(Shape::default())["eventId"].as_str().unwrap().len(), 36, "a UUID");
}

#[test]
fn the_flat_record_of_an_order_ends_as_its_row_does() {
    let last = Workload::plain(1).events().last().unwrap();
    let flat: serde_json::Value = serde_json::from_str(&last.flat()).unwrap();
    assert_eq!((&flat["status"], &flat["last_event_sequence"]), (&"Shipped".into(), &3.into()));
    assert_eq!(flat.as_object().unwrap().len(), 10);
    let net = Expected::of(Workload::plain(1)).net_cents;
    assert_eq!((flat["total_net"].as_f64().unwrap() * 100.0).round() as i64, net);
}
