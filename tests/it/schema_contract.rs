//! The published JSON Schemas and the compiled reader accept the same events; every documented difference is a test
//! of its own (see `schemas/README.md`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};
use streamview::codec::Head;
use streamview::codec::json::check_storable;
use streamview::domain::poison::{Poison, Reason};
use streamview::domain::units::Sequence;
use streamview::views::orders::contract::ALL;
use streamview::views::orders::event;
use streamview::views::orders::lines::MAX_ITEMS;

const TYPES: [(&str, &str); 3] = [
    ("OrderCreated", include_str!("../../schemas/json/order_created.schema.json")),
    ("OrderItemAdded", include_str!("../../schemas/json/order_item_added.schema.json")),
    ("OrderStatusChanged", include_str!("../../schemas/json/order_status_changed.schema.json")),
];

static SCHEMAS: LazyLock<BTreeMap<&str, Validator>> = LazyLock::new(|| {
    let compiled = TYPES.map(|(name, text)| (name, jsonschema::validator_for(&json_of(text)).unwrap()));
    compiled.into()
});

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn schema_accepts(event_type: &str, document: &Value) -> bool {
    SCHEMAS[event_type].is_valid(document)
}

/// Reads `text` as the projector does, with the record key that its `orderId` asks for.
fn read(event_type: &str, text: &str) -> Result<(), Poison> {
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let key = document["orderId"].as_str().unwrap_or("some-key").to_owned();
    let head = Head { key: &key, sequence: Sequence(1), event_type: Some(event_type), version: 1 };
    event::parse(&head, check_storable(text.as_bytes())?).map(|_| ())
}

fn refusal(event_type: &str, text: &str) -> Option<Reason> {
    read(event_type, text).err().map(|poison| poison.reason)
}

/// A valid event of each type, with every field that the type has.
fn full(event_type: &str) -> Value {
    let mut document =
        json!({ "type": event_type, "eventId": "e-1", "occurredAt": "2026-01-31T12:00:00.5+01:00", "orderId": "o-1" });
    let item = json!({ "itemId": "i-1", "sku": "TEA", "qty": 2, "price": "4.35", "taxRate": "0.07" });
    let fields = match event_type {
        "OrderCreated" => json!({ "customerId": "c-1", "currency": "EUR", "items": [item, item] }),
        "OrderItemAdded" => item,
        _ => json!({ "status": "Paid" }),
    };
    document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    document
}

#[test]
fn every_example_is_accepted_by_the_schema_and_by_the_reader() {
    let mut seen = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/examples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let document = json_of(&text);
        let id = schema_file(&path);
        let contract = ALL.iter().find(|contract| json_of(contract.json)["$id"] == id).unwrap();
        let schema = jsonschema::validator_for(&json_of(contract.json)).unwrap();
        let errors: Vec<String> = schema.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        let key = document["orderId"].as_str().unwrap();
        let head = Head { key, sequence: Sequence(1), event_type: Some(contract.event_type), version: contract.since };
        let read = event::parse(&head, check_storable(text.as_bytes()).unwrap());
        assert!(read.is_ok(), "{}: {read:?}", path.display());
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} examples");
}

/// The schema id that an example's name stands for: `order_created.minimal.json` is an `order_created`, and
/// `order_created.v2.json` one of version 2.
fn schema_file(example: &std::path::Path) -> String {
    let name = example.file_name().unwrap().to_str().unwrap();
    let version = if name.contains(".v2.") { 2 } else { 1 };
    format!("urn:streamview:schema:{}:{version}", name.split('.').next().unwrap())
}

// --- generated documents near the contract

fn any_text() -> impl Strategy<Value = Value> {
    const CHOSEN: [&str; 16] =
        ["", "a", "EUR", "eur", "EU", "EURO", "ÄÖÜ", "€", "Paid", "null", "1", "\n", "EUR\n", "\"", "\\u0041", "é́"];
    prop_oneof![
        prop::sample::select(&CHOSEN[..]).prop_map(Value::from),
        (254..259usize, prop::sample::select(vec!["x", "ß", "😀"]))
            .prop_map(|(length, letter)| letter.repeat(length).into()),
        "[A-Z]{2,4}".prop_map(Value::from),
        "[^\0]{0,6}".prop_map(Value::from),
    ]
}

fn any_time() -> impl Strategy<Value = Value> {
    let parts = |texts: &'static [&'static str]| prop::sample::select(texts);
    let assembled = (
        parts(&["2026", "0000", "0001", "9998", "226", "20260", "-2026", "+2026"]),
        parts(&["-", "-", "-", "", "/"]),
        parts(&["01", "12", "00", "13", "1"]),
        parts(&["01", "28", "00", "32", "7"]),
        parts(&["T", "T", "t", " ", "_", ""]),
        parts(&["00:00:00", "23:59:59", "12:30:09", "24:00:00", "12:60:00", "12:00:61", "12:00", "1:00:00"]),
        parts(&["", "", ".1", ".123456789", ".1234567890", ".", ",5"]),
        parts(&[
            "Z", "Z", "z", "+00:00", "-23:59", "+23:59", "+24:00", "+25:59", "+12:60", "+0100", "+01", "-00:00", "",
            " Z", "[UTC]", "Z[UTC]",
        ]),
    );
    prop_oneof![
        3 => (0..24u8, 0..60u8, 0..60u8).prop_map(|(h, m, s)| json!(format!("2026-02-03T{h:02}:{m:02}:{s:02}Z"))),
        3 => assembled.prop_map(|(y, dash, m, d, t, time, fraction, zone)| json!(format!("{y}{dash}{m}{dash}{d}{t}{time}{fraction}{zone}"))),
    ]
}

fn any_decimal() -> impl Strategy<Value = Value> {
    let digits = |most: usize| prop_oneof![(0..=most).boxed(), (most - 1..=most + 1).boxed()];
    let string = ("-?|\\+", digits(18), digits(12), "0|1|00|01|", "\\.|,||", "|0|0{20}").prop_map(
        |(sign, whole, fraction, lead, point, zeros)| {
            format!("{sign}{lead}{}{point}{}{zeros}", "7".repeat(whole), "3".repeat(fraction))
        },
    );
    let number = prop_oneof![
        any::<i64>().prop_map(|number| json!(number)),
        prop::sample::select(vec![
            0,
            -1,
            1,
            999_999_999_999_999_999,
            1_000_000_000_000_000_000,
            -999_999_999_999_999_999,
            -1_000_000_000_000_000_000i64
        ])
        .prop_map(|number| json!(number)),
        // Few enough digits for the schema's validator, which reads numbers into floats.
        (-99_999_999i64..99_999_999, 1..5u32)
            .prop_map(|(mantissa, scale)| json!(mantissa as f64 / 10f64.powi(scale as i32))),
    ];
    prop_oneof![
        string.prop_map(Value::from),
        number,
        prop::sample::select(vec!["1e3", "1E3", "0x1", " 1", "1 ", "NaN", "-", "--1", "1.", ".1", "-0", "-0.0", "٣"])
            .prop_map(Value::from),
    ]
}

fn any_junk() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{}])),
        Just(json!({ "itemId": "i" })),
        (-3i64..3).prop_map(Value::from),
        any_text(),
    ]
}

/// What may be done to one field.
fn any_value_for(field: &'static str) -> BoxedStrategy<Value> {
    match field {
        "occurredAt" => any_time().boxed(),
        "qty" | "price" | "taxRate" => any_decimal().boxed(),
        "currency" => {
            prop_oneof!["[A-Za-z]{3}", "[A-Z]{2,4}", "[a-z0-9]{3}", "[A-ZÄ€]{3}"].prop_map(Value::from).boxed()
        }
        "type" => prop::sample::select(vec!["OrderCreated", "OrderItemAdded", "OrderStatusChanged", "Other", ""])
            .prop_map(Value::from)
            .boxed(),
        "items" => prop::collection::vec(prop_oneof![any_item().boxed(), any_junk().boxed()], 0..4)
            .prop_map(Value::from)
            .boxed(),
        _ => any_text().boxed(),
    }
}

const FIELDS: [&str; 13] = [
    "type",
    "eventId",
    "occurredAt",
    "orderId",
    "customerId",
    "currency",
    "items",
    "status",
    "itemId",
    "sku",
    "qty",
    "price",
    "taxRate",
];
const ITEM_FIELDS: [&str; 5] = ["itemId", "sku", "qty", "price", "taxRate"];

#[derive(Debug, Clone)]
enum Change {
    Remove(&'static str),
    Set(&'static str, Value),
    Add(String, Value),
}

fn any_change(fields: &'static [&'static str]) -> impl Strategy<Value = Change> {
    let field = prop::sample::select(fields);
    prop_oneof![
        2 => field.clone().prop_map(Change::Remove),
        5 => field.clone().prop_flat_map(|field| any_value_for(field).prop_map(move |value| Change::Set(field, value))),
        2 => (field, any_junk()).prop_map(|(field, value)| Change::Set(field, value)),
        1 => ("[a-zA-Z]{1,8}|ITEMS|event_id|ORDERID", any_junk()).prop_map(|(field, value)| Change::Add(field, value)),
    ]
}

fn apply(document: &mut Map<String, Value>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Remove(field) => drop(document.remove(field)),
            Change::Set(field, value) => drop(document.insert(field.to_owned(), value)),
            Change::Add(field, value) if !FIELDS.contains(&field.as_str()) => drop(document.insert(field, value)),
            Change::Add(..) => {}
        }
    }
}

fn any_item() -> impl Strategy<Value = Value> {
    prop::collection::vec(any_change(&ITEM_FIELDS), 0..2).prop_map(|changes| {
        let mut item = json!({ "itemId": "i-1", "sku": "TEA", "qty": 2, "price": "4.35" });
        apply(item.as_object_mut().unwrap(), changes);
        item
    })
}

fn near_the_contract() -> impl Strategy<Value = (&'static str, Value)> {
    let event_type = prop::sample::select(TYPES.map(|(name, _)| name).to_vec());
    (event_type, prop::collection::vec(any_change(&FIELDS), 0..3)).prop_map(|(event_type, changes)| {
        let mut document = full(event_type);
        apply(document.as_object_mut().unwrap(), changes);
        (event_type, document)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
    #[test]
    fn the_reader_accepts_exactly_what_the_schema_accepts((event_type, document) in near_the_contract()) {
        let text = document.to_string();
        let read = read(event_type, &text);
        prop_assert_eq!(read.is_ok(), schema_accepts(event_type, &document), "{}: {:?}", text, read);
    }
}

#[test]
fn the_generator_reaches_both_sides_of_the_contract() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut accepted = [0, 0];
    for _ in 0..2_000 {
        let (event_type, document) = near_the_contract().new_tree(&mut runner).unwrap().current();
        accepted[usize::from(schema_accepts(event_type, &document))] += 1;
    }
    assert!(accepted.iter().all(|count| *count > 400), "refused, accepted: {accepted:?}");
}

#[test]
fn items_end_at_ten_thousand_in_both() {
    let item = json!({ "itemId": "i", "sku": "s", "qty": 1, "price": 1 });
    for (count, fits) in [(0, true), (MAX_ITEMS, true), (MAX_ITEMS + 1, false)] {
        let mut document = full("OrderCreated");
        document["items"] = vec![item.clone(); count].into();
        assert_eq!(schema_accepts("OrderCreated", &document), fits, "{count}");
        assert_eq!(refusal("OrderCreated", &document.to_string()).is_none(), fits, "{count}");
    }
}

// --- the documented differences: the schema lets each of these pass, the reader does not

/// Asserts that the schema accepts `text` and that the reader refuses it for `reason`.
fn only_the_reader_refuses(event_type: &str, text: &str, reason: Reason) {
    assert!(schema_accepts(event_type, &json_of(text)), "the schema refuses {text}");
    assert_eq!(refusal(event_type, text), Some(reason), "{text}");
}

fn status_changed_with(from: &str, to: &str) -> String {
    let text = full("OrderStatusChanged").to_string();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

fn item_with_qty(qty: &str) -> String {
    full("OrderItemAdded").to_string().replacen("\"qty\":2", &format!("\"qty\":{qty}"), 1)
}

#[test]
fn only_the_reader_knows_the_calendar() {
    for day in ["2026-02-30", "2025-02-29", "2026-04-31"] {
        let text = status_changed_with("2026-01-31", day);
        only_the_reader_refuses("OrderStatusChanged", &text, Reason::SchemaViolation);
    }
    assert_eq!(refusal("OrderStatusChanged", &status_changed_with("2026-01-31", "2024-02-29")), None);
}

/// No pattern can say it: with an offset the same second may be in any hour and half of one.
#[test]
fn only_the_reader_knows_when_there_was_a_leap_second() {
    for time in ["2026-01-31T12:30:60Z", "2016-12-31T23:59:60+01:00", "2025-06-30T23:59:60Z"] {
        let text = status_changed_with("2026-01-31T12:00:00.5+01:00", time);
        only_the_reader_refuses("OrderStatusChanged", &text, Reason::SchemaViolation);
    }
    let real = status_changed_with("2026-01-31T12:00:00.5+01:00", "2017-01-01T00:59:60+01:00");
    assert_eq!(refusal("OrderStatusChanged", &real), None);
}

#[test]
fn zeros_at_the_end_are_not_counted_by_schema_and_reader() {
    for qty in ["9.990000000000000000", "-0.0000000000000", "1.1234567890120"] {
        let text = item_with_qty(&format!("\"{qty}\""));
        assert!(schema_accepts("OrderItemAdded", &json_of(&text)), "{qty}");
        assert_eq!(refusal("OrderItemAdded", &text), None, "{qty}");
        assert_eq!(refusal("OrderItemAdded", &item_with_qty(qty)), None, "{qty} as a number");
    }
}

#[test]
fn only_the_reader_knows_where_time_ends() {
    for time in ["9999-12-31T23:59:59Z", "9999-12-30T22:00:01Z"] {
        let text = status_changed_with("2026-01-31T12:00:00.5+01:00", time);
        only_the_reader_refuses("OrderStatusChanged", &text, Reason::SchemaViolation);
    }
    let latest = status_changed_with("2026-01-31T12:00:00.5+01:00", "9999-12-30T22:00:00Z");
    assert_eq!(refusal("OrderStatusChanged", &latest), None);
}

#[test]
fn only_the_reader_counts_the_fraction_digits_of_a_number() {
    assert_eq!(refusal("OrderItemAdded", &item_with_qty("0.123456789012")), None);
    only_the_reader_refuses("OrderItemAdded", &item_with_qty("0.1234567890123"), Reason::SchemaViolation);
}

#[test]
fn only_the_reader_sees_the_exponent_of_a_number() {
    for number in ["1e2", "1E2", "1e-2", "100e-2"] {
        only_the_reader_refuses("OrderItemAdded", &item_with_qty(number), Reason::SchemaViolation);
    }
}

#[test]
fn only_the_reader_refuses_characters_that_postgres_cannot_store() {
    only_the_reader_refuses("OrderStatusChanged", &status_changed_with("Paid", "P\\u0000d"), Reason::Unrepresentable);
    // A validator that reads JSON strictly does not get to see a lone surrogate at all.
    for surrogate in ["\\ud800", "\\udc00", "\\udc00\\ud800"] {
        assert_eq!(
            refusal("OrderStatusChanged", &status_changed_with("Paid", surrogate)),
            Some(Reason::Unrepresentable)
        );
    }
}

#[test]
fn only_the_reader_refuses_numbers_and_nesting_that_postgres_cannot_store() {
    let extra = |value: &str| status_changed_with("{", &format!("{{\"extra\":{value},"));
    only_the_reader_refuses("OrderStatusChanged", &extra(&format!("0.{}", "1".repeat(1000))), Reason::Unrepresentable);
    only_the_reader_refuses("OrderStatusChanged", &extra("1e-1000"), Reason::Unrepresentable);
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    only_the_reader_refuses("OrderStatusChanged", &extra(&deep), Reason::NestingTooDeep);
}

#[test]
fn only_the_reader_refuses_a_field_that_stands_twice() {
    let text = status_changed_with("{", "{\"status\":\"Packed\",");
    only_the_reader_refuses("OrderStatusChanged", &text, Reason::InvalidJson);
}

/// Version 2 differs from version 1 in the tax of a line; what else it says is tested above.
#[test]
fn version_2_and_the_reader_agree_on_the_tax_of_a_line() {
    let schemas = [
        include_str!("../../schemas/json/order_created.v2.schema.json"),
        include_str!("../../schemas/json/order_item_added.v2.schema.json"),
    ]
    .map(|text| jsonschema::validator_for(&json_of(text)).unwrap());
    let values = [
        json!(19),
        json!(7.5),
        json!("19.00"),
        json!("-1"),
        json!(null),
        json!("x"),
        json!(""),
        json!(true),
        json!({}),
        json!("1234567890123456789"),
        json!("0.1234567890123"),
    ];
    let mut seen = [0, 0];
    for (event_type, schema) in ["OrderCreated", "OrderItemAdded"].into_iter().zip(&schemas) {
        for (field, value) in values.iter().flat_map(|value| [("taxPercent", value), ("taxRate", value)]) {
            let mut document = full(event_type);
            let line = if event_type == "OrderCreated" { &mut document["items"][1] } else { &mut document };
            line.as_object_mut().unwrap().remove("taxRate");
            line[field] = value.clone();
            if event_type == "OrderCreated" {
                document["items"][0].as_object_mut().unwrap().remove("taxRate");
            }
            let head = Head { key: "o-1", sequence: Sequence(1), event_type: None, version: 2 };
            let text = document.to_string();
            let accepted = event::parse(&head, &text).is_ok();
            assert_eq!(accepted, schema.is_valid(&document), "{event_type}.{field} = {value}");
            seen[usize::from(accepted)] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
}

#[test]
fn only_the_reader_knows_the_key_and_the_headers() {
    let text = full("OrderStatusChanged").to_string();
    assert!(schema_accepts("OrderStatusChanged", &json_of(&text)));
    let head = Head { key: "o-1", sequence: Sequence(1), event_type: None, version: 1 };
    let reason = |head: &Head<'_>| event::parse(head, &text).err().map(|poison| poison.reason);
    assert_eq!(reason(&head), None);
    assert_eq!(reason(&Head { key: "o-2", ..head }), Some(Reason::KeyMismatch));
    assert_eq!(reason(&Head { event_type: Some("OrderCreated"), ..head }), Some(Reason::TypeMismatch));
    assert_eq!(reason(&Head { version: 3, ..head }), Some(Reason::UnsupportedVersion));
}
