use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;

fn disorderly(orders: u64) -> SeedPlan {
    SeedPlan { duplicates: 0.05, late: 0.04, gaps: 0.03, poison: 0.01, ..SeedPlan::orderly(orders, 7) }
}

fn run(plan: &SeedPlan) -> (Vec<SeedRecord>, SeedSummary) {
    let mut generator = plan.generate();
    let records = generator.by_ref().collect();
    (records, generator.summary())
}

fn header<'a>(record: &'a SeedRecord, name: &str) -> Option<&'a str> {
    let (_, value) = record.headers.iter().find(|(candidate, _)| candidate == name)?;
    Some(std::str::from_utf8(value).unwrap())
}

fn sequence(record: &SeedRecord) -> u64 {
    header(record, "x-sequence").unwrap().parse().unwrap()
}

fn event(record: &SeedRecord) -> Value {
    serde_json::from_slice(&record.payload).unwrap()
}

/// Schema errors of a payload; the schema is the one of its own `type`.
struct Schemas(BTreeMap<&'static str, jsonschema::Validator>);

impl Schemas {
    fn load() -> Schemas {
        let sources = [
            ("OrderCreated", include_str!("../../../../../schemas/json/order_created.schema.json")),
            ("OrderItemAdded", include_str!("../../../../../schemas/json/order_item_added.schema.json")),
            ("OrderStatusChanged", include_str!("../../../../../schemas/json/order_status_changed.schema.json")),
        ];
        let compile = |text: &str| {
            let schema = serde_json::from_str(text).unwrap();
            jsonschema::meta::validate(&schema).unwrap();
            jsonschema::validator_for(&schema).unwrap()
        };
        Schemas(sources.into_iter().map(|(name, text)| (name, compile(text))).collect())
    }

    fn accept(&self, event_type: &str, event: &Value) -> bool {
        self.0[event_type].is_valid(event)
    }
}

/// A reader that follows the rules of gaps and repetitions, nothing else.
#[derive(Default)]
struct Reader {
    last: BTreeMap<Vec<u8>, u64>,
    parked: BTreeMap<Vec<u8>, BTreeSet<u64>>,
    seen: SeedSummary,
    gaps: u64,
}

impl Reader {
    fn read(&mut self, record: &SeedRecord, schemas: &Schemas) {
        self.seen.records += 1;
        let sound = serde_json::from_slice::<Value>(&record.payload)
            .is_ok_and(|event| schemas.accept(event["type"].as_str().unwrap(), &event));
        let (true, Some(key), Some(_)) = (sound, &record.key, header(record, "x-sequence")) else {
            self.seen.poison += 1;
            return;
        };
        let last = self.last.entry(key.clone()).or_default();
        let parked = self.parked.entry(key.clone()).or_default();
        match sequence(record) {
            sequence if sequence == *last => self.seen.duplicates += 1,
            sequence if sequence < *last => self.seen.late += 1,
            sequence if sequence > *last + 1 => {
                self.gaps += 1;
                assert!(parked.insert(sequence), "a parked event is never repeated");
            }
            _ => {
                *last += 1;
                self.seen.applied += 1;
                while parked.remove(&(*last + 1)) {
                    *last += 1;
                    self.seen.applied += 1;
                }
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let plan = disorderly(300);
    assert_eq!(run(&plan), run(&plan));
    assert_ne!(run(&plan).0, run(&SeedPlan { seed: 8, ..plan }).0);
}

#[test]
fn every_life_is_complete_without_poison() {
    let (records, summary) = run(&SeedPlan { poison: 0.0, ..disorderly(500) });
    let mut sequences: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
    let mut names: BTreeMap<String, (Vec<u8>, u64)> = BTreeMap::new();
    for record in &records {
        let id = (record.key.clone().unwrap(), sequence(record));
        sequences.entry(id.0.clone()).or_default().insert(id.1);
        let name = event(record)["eventId"].as_str().unwrap().to_owned();
        assert_eq!(*names.entry(name).or_insert_with(|| id.clone()), id, "event ids are unique");
    }
    assert_eq!(sequences.len(), 500);
    assert_eq!(summary.orders, 500);
    for sequences in sequences.values() {
        assert!(sequences.iter().copied().eq(1..=sequences.len() as u64));
    }
}

#[test]
fn a_reader_meets_exactly_the_summary() {
    let schemas = Schemas::load();
    for plan in [
        SeedPlan::orderly(200, 1),
        disorderly(2000),
        SeedPlan { duplicates: 0.5, late: 0.5, gaps: 0.5, poison: 0.1, ..SeedPlan::orderly(500, 2) },
        SeedPlan { count: Some(1234), ..disorderly(u64::MAX) },
    ] {
        let (records, summary) = run(&plan);
        let mut reader = Reader::default();
        for record in &records {
            reader.read(record, &schemas);
        }
        reader.seen.parked = reader.parked.values().map(|parked| parked.len() as u64).sum();
        assert_eq!(summary.delayed > 0, plan.gaps > 0.0);
        // The direct successor of a delayed event is always there before it.
        assert!(reader.gaps >= summary.delayed + summary.parked, "{} gaps, {summary:?}", reader.gaps);
        let expected = SeedSummary { orders: 0, delayed: 0, ..summary };
        assert_eq!(reader.seen, expected);
        assert_eq!(
            summary.records,
            summary.applied + summary.parked + summary.duplicates + summary.late + summary.poison
        );
    }
}

#[test]
fn shares_are_hit() {
    let (_, summary) = run(&disorderly(20_000));
    let events = (summary.applied + summary.parked + summary.poison) as f64;
    for (count, share) in
        [(summary.duplicates, 0.05), (summary.late, 0.04), (summary.delayed, 0.03), (summary.poison, 0.01)]
    {
        let hit = count as f64 / events;
        assert!((hit / share - 1.0).abs() < 0.1, "{hit} instead of {share}");
    }
}

#[test]
fn a_count_is_exact_and_leaves_no_gap_open() {
    for count in [0, 1, 7, 1000] {
        let plan = SeedPlan { count: Some(count), gaps: 0.5, ..SeedPlan::orderly(u64::MAX, 3) };
        let (records, summary) = run(&plan);
        assert_eq!(records.len() as u64, count);
        assert_eq!(summary.applied, count);
    }
}

#[test]
fn time_passes_in_order_and_orders_are_interleaved() {
    let (records, _) = run(&SeedPlan::orderly(500, 4));
    let times: Vec<Timestamp> =
        records.iter().map(|record| event(record)["occurredAt"].as_str().unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a < b));
    let (first, last) = (times[0], times[times.len() - 1]);
    let step = last.duration_since(first).as_secs_f64() / times.len() as f64;
    assert!((0.2..0.3).contains(&step), "{step} s between two events");

    let middle = records.len() / 2;
    let neighbours: BTreeSet<_> = records[middle..middle + 100].iter().map(|record| &record.key).collect();
    assert!(neighbours.len() > 40, "{} orders in 100 records", neighbours.len());
}

#[test]
fn records_keep_the_contract() {
    let schemas = Schemas::load();
    let (records, summary) = run(&SeedPlan { duplicates: 0.1, ..SeedPlan::orderly(1000, 5) });
    let mut typed = 0;
    let mut by_type: BTreeMap<String, u64> = BTreeMap::new();
    for record in &records {
        let event = event(record);
        let event_type = event["type"].as_str().unwrap();
        assert!(schemas.accept(event_type, &event), "{event}");
        assert_eq!(record.key.as_deref(), event["orderId"].as_str().map(str::as_bytes));
        assert_eq!(header(record, "x-event-version"), Some("1"));
        let trace: Vec<&str> = header(record, "traceparent").unwrap().split('-').collect();
        assert_eq!(trace.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        if let Some(header) = header(record, "x-event-type") {
            assert_eq!(header, event_type);
            typed += 1;
        }
        *by_type.entry(event_type.to_owned()).or_default() += 1;
    }
    assert!((typed as f64 / summary.records as f64 - 0.5).abs() < 0.05);
    assert_eq!(by_type.len(), 3, "{by_type:?}");
}

#[test]
fn examples_keep_the_contract() {
    let schemas = Schemas::load();
    for (event_type, text) in [
        ("OrderCreated", include_str!("../../../../../schemas/examples/order_created.json")),
        ("OrderCreated", include_str!("../../../../../schemas/examples/order_created.minimal.json")),
        ("OrderItemAdded", include_str!("../../../../../schemas/examples/order_item_added.json")),
        ("OrderStatusChanged", include_str!("../../../../../schemas/examples/order_status_changed.json")),
    ] {
        assert!(schemas.accept(event_type, &serde_json::from_str(text).unwrap()), "{text}");
    }
}

#[test]
fn schemas_refuse_what_the_contract_excludes() {
    let schemas = Schemas::load();
    let good: Value =
        serde_json::from_str(include_str!("../../../../../schemas/examples/order_item_added.json")).unwrap();
    for (field, bad) in [
        ("occurredAt", "\"2026-03-02T09:15:40\""),
        ("occurredAt", "\"2026-03-02 09:15:40Z\""),
        ("occurredAt", "\"2026-3-2T09:15:40Z\""),
        ("occurredAt", "\"2026-03-02T24:00:00Z\""),
        ("occurredAt", "\"2026-03-02T09:15:40.Z\""),
        ("occurredAt", "\"2026-03-02T09:15:40+0100\""),
        ("occurredAt", "1772442940"),
        ("type", "\"OrderCreated\""),
        ("eventId", "\"\""),
        ("orderId", "17"),
        ("qty", "\"1e3\""),
        ("qty", "\"01\""),
        ("qty", "\"1.\""),
        ("qty", "\"+1\""),
        ("qty", "\"1234567890123456789\""),
        ("price", "\"0.1234567890123\""),
        ("price", "1e18"),
        ("price", "null"),
        ("taxRate", "true"),
    ] {
        let mut event = good.clone();
        event[field] = serde_json::from_str(bad).unwrap();
        assert!(!schemas.accept("OrderItemAdded", &event), "{field} = {bad}");
    }
    for (field, allowed) in [
        ("occurredAt", "\"2026-03-02t09:15:60.123456789+01:00\""),
        ("qty", "\"-999999999999999999.999999999999\""),
        ("taxRate", "11"),
        ("taxRate", "null"),
        ("more", "{}"),
    ] {
        let mut event = good.clone();
        event[field] = serde_json::from_str(allowed).unwrap();
        assert!(schemas.accept("OrderItemAdded", &event), "{field} = {allowed}");
    }
}
