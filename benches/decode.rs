//! Nanoseconds to decode one event, by format: the same events as JSON and as Avro, from record to event struct and JSON
//! text. `cargo bench --bench decode`; how to read it: `docs/performance.md`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a program")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use streamview::codec::Limits;
use streamview::codec::avro::{Program, Reader};
use streamview::codec::frame::SchemaName;
use streamview::codec::schemas::{Schemas, WriterSchema};
use streamview::domain::decimal::Decimal;
use streamview::domain::record::{Headers, Record};
use streamview::domain::units::{Offset, Partition, Sequence};
use streamview::engine::decode::{Decoder, Overrules};
use streamview::engine::view::View;
use streamview::views::orders::Orders;
use streamview::views::orders::contract::contracts;

/// Rounds of which the fastest counts: the others were disturbed.
const ROUNDS: usize = 15;
const EVENTS_PER_ROUND: usize = 20_000;
const ITEMS: usize = 3;

fn main() {
    let view = Orders::new("orders", Decimal::ZERO);
    let reader = Reader::new(view.spec().avro);
    let overrules = Overrules::default();
    println!("ns per event, best of {ROUNDS} rounds of {EVENTS_PER_ROUND}\n");
    println!(
        "{:<20} {:>11} {:>11} {:>8} {:>8} {:>8} {:>14}",
        "event", "JSON bytes", "Avro bytes", "JSON", "Avro", "ratio", "generic Avro"
    );
    for (contract, (json, value)) in contracts(1).zip(events()) {
        let schema = Schema::parse_str(contract.avro).unwrap();
        let body = GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap();
        let mut schemas = Schemas::default();
        schemas.insert(
            SchemaName::Id(1),
            WriterSchema::Avro(Arc::new(Program::compile(&reader, contract.avro, &[]).unwrap())),
        );
        let avro = [&[0, 0, 0, 0, 1], body.as_slice()].concat();
        let limits = Limits { max_record_bytes: 1 << 20, first_sequence: Sequence(1) };
        let decoder = Decoder { view: &view, limits, overrules: &overrules, schemas: &schemas };
        let mut headers = Vec::new();
        Headers::push(&mut headers, b"x-sequence", Some(b"1"));
        let record = |payload| Record {
            partition: Partition(0),
            offset: Offset(0),
            timestamp_ms: None,
            key: Some(b"order-1"),
            payload: Some(payload),
            headers: Headers::from_encoded(&headers),
        };
        let decode = |payload| {
            assert!(black_box(decoder.decode(record(black_box(payload)))).outcome.is_ok());
        };
        let of_json = fastest(|| decode(json.as_bytes()));
        let of_avro = fastest(|| decode(&avro));
        let generic = GenericDatumReader::builder(&schema).build().unwrap();
        let of_generic = fastest(|| drop(black_box(generic.read_value(&mut black_box(body.as_slice())).unwrap())));
        println!(
            "{:<20} {:>11} {:>11} {of_json:>8.0} {of_avro:>8.0} {:>8.2} {of_generic:>14.0}",
            contract.event_type,
            json.len(),
            avro.len(),
            of_avro / of_json
        );
    }
    println!(
        "\nGeneric Avro is apache_avro's own value tree, without validation and without the text for the history."
    );
}

fn fastest(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for _ in 0..EVENTS_PER_ROUND {
            work();
        }
        best = best.min(started.elapsed().as_nanos() as f64 / EVENTS_PER_ROUND as f64);
    }
    best
}

/// The three events, each as JSON text and as an Avro value; amounts as texts with the digits that Avro gives them.
fn events() -> [(String, Value); 3] {
    let text = |text: &str| Value::String(text.to_owned());
    let decimal = |number: i32| Value::Decimal(apache_avro::Decimal::from(number.to_be_bytes()));
    let record = |fields: Vec<(&str, Value)>| {
        Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let head = || {
        vec![
            ("eventId", text("5f2b8c1e-7d44-4c39-9a51-1d2f0e6b7a90")),
            ("occurredAt", Value::TimestampMicros(1_769_860_800_250_000)),
            ("orderId", text("order-1")),
        ]
    };
    let item = |number: usize| {
        vec![
            ("itemId", text(&format!("item-{number}"))),
            ("sku", text("SKU-000123-GREEN")),
            ("qty", decimal(2_000)),
            ("price", decimal(125_000)),
            ("taxRate", Value::Union(1, Box::new(decimal(1_900)))),
        ]
    };
    let json_head = |event_type: &str| {
        format!(
            r#""type":"{event_type}","eventId":"5f2b8c1e-7d44-4c39-9a51-1d2f0e6b7a90","occurredAt":"2026-01-31T12:00:00.25Z","orderId":"order-1""#
        )
    };
    let json_item = |number: usize| {
        format!(
            r#""itemId":"item-{number}","sku":"SKU-000123-GREEN","qty":"2.000","price":"12.5000","taxRate":"0.1900""#
        )
    };
    let items: Vec<String> = (0..ITEMS).map(|number| format!("{{{}}}", json_item(number))).collect();
    let of_order = [("customerId", text("customer-4711")), ("currency", text("EUR"))];
    let lines = Value::Array((0..ITEMS).map(|number| record(item(number))).collect());
    [
        (
            format!(
                r#"{{{},"customerId":"customer-4711","currency":"EUR","items":[{}]}}"#,
                json_head("OrderCreated"),
                items.join(",")
            ),
            record(head().into_iter().chain(of_order).chain([("items", lines)]).collect()),
        ),
        (
            format!("{{{},{}}}", json_head("OrderItemAdded"), json_item(1)),
            record(head().into_iter().chain(item(1)).collect()),
        ),
        (
            format!(r#"{{{},"status":"Delivered"}}"#, json_head("OrderStatusChanged")),
            record(head().into_iter().chain([("status", text("Delivered"))]).collect()),
        ),
    ]
}
