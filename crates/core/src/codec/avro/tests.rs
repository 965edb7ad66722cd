//! Bodies written by `apache_avro` are read as what they say, and hostile ones are refused within bounds.

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Decimal as AvroDecimal, Schema};
use proptest::prelude::*;

use super::lenient::Plain;
use super::render::{Text, small_integer};
use super::*;
use crate::codec::fields::{Field, Typed};
use crate::codec::json::MAX_DEPTH;
use crate::domain::decimal::Decimal;
use crate::domain::poison::Reason;
use crate::domain::units::Micros;

const SHAPE: Shape = Shape {
    fields: &["id", "amount", "at", "note", "rows", "size"],
    schemas: &[r#"{"type":"record","name":"Made","namespace":"ours","aliases":["Created"],"fields":[
        {"name":"id","type":"string"},
        {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":2},"aliases":["sum"]},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"note","type":["null","string"],"default":null},
        {"name":"size","type":"long","default":7},
        {"name":"rows","type":{"type":"array","items":{"type":"record","name":"Row","fields":[
            {"name":"id","type":"string"},{"name":"size","type":"long","default":3}]}},"default":[]}]}"#],
    ..Shape::NONE
};

fn compile(schema: &str) -> Program {
    Program::compile(&Reader::new(SHAPE), schema, &[]).unwrap()
}

fn encode(schema: &str, value: Value) -> Vec<u8> {
    let schema = Schema::parse_str(schema).unwrap();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

fn record(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn field<'e, 'a>(event: &'e Event<'a>, name: &str) -> Option<&'e Typed<'a>> {
    let slot = SHAPE.fields.iter().position(|field| *field == name).unwrap() as u8;
    event.fields.iter().find(|(known, _)| *known == slot).map(|(_, value)| value)
}

/// The one field of a record, as typed and as JSON.
fn one(field_type: &str, value: Value) -> Result<(String, String), Reason> {
    let schema = format!(r#"{{"type":"record","name":"Other","fields":[{{"name":"amount","type":{field_type}}}]}}"#);
    let program = compile(&schema);
    let body = encode(&schema, record(vec![("amount", value)]));
    let event = program.read(&body).map_err(|poison| poison.reason)?;
    Ok((field(&event, "amount").unwrap().shown(), event.json.replacen(r#"{"amount":"#, "", 1).replacen('}', "", 1)))
}

fn decimal(bytes: &[u8]) -> Value {
    Value::Decimal(AvroDecimal::from(bytes))
}

#[test]
fn a_record_of_another_writer_is_resolved_by_alias_and_default() {
    let schema = r#"{"type":"record","name":"Created","fields":[
        {"name":"extra","type":{"type":"map","values":"int"}},
        {"name":"sum","type":{"type":"fixed","name":"Sum","size":4,"logicalType":"decimal","precision":9,"scale":3}},
        {"name":"id","type":"string"},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"rows","type":["null",{"type":"array","items":{"type":"record","name":"Row","fields":[
            {"name":"id","type":"string"},{"name":"more","type":"boolean"}]}}]}]}"#;
    let row = |id: &str| record(vec![("id", Value::String(id.into())), ("more", Value::Boolean(true))]);
    let value = record(vec![
        ("extra", Value::Map([("a".to_owned(), Value::Int(-1))].into())),
        ("sum", decimal(&[0xff, 0xff, 0xfb, 0x2e])),
        ("id", Value::String("x\"1".into())),
        ("at", Value::TimestampMillis(1_500)),
        ("rows", Value::Union(1, Box::new(Value::Array(vec![row("r1"), row("r2")])))),
    ]);
    let (program, body) = (compile(schema), encode(schema, value));
    let event = program.read(&body).unwrap();
    assert_eq!((event.record, event.is_ours), ("Made", true));
    assert_eq!(field(&event, "id"), Some(&Typed::Text("x\"1")));
    assert_eq!(field(&event, "amount").unwrap().decimal().unwrap().to_string(), "-1.234");
    assert_eq!(field(&event, "at").unwrap().micros(), Some(Micros(1_500_000)));
    assert_eq!((field(&event, "note"), field(&event, "size")), (Some(&Typed::Null), Some(&Typed::Integer(7))));
    let Some(Typed::Rows(rows)) = field(&event, "rows") else { panic!("no rows") };
    assert_eq!(rows[1], vec![(5, Typed::Integer(3)), (0, Typed::Text("r2"))]);
    assert_eq!(
        event.json,
        r#"{"extra":{"a":-1},"sum":"-1.234","id":"x\"1","at":"1970-01-01T00:00:01.5Z","rows":[{"id":"r1","more":true},{"id":"r2","more":true}]}"#
    );
}

#[test]
fn each_kind_of_value_has_its_field_and_its_json() {
    let typed = |field_type: &str, value| one(field_type, value).unwrap();
    let pair = |shown: &str, json: &str| (shown.to_owned(), json.to_owned());
    let bytes = |scale| format!(r#"{{"type":"bytes","logicalType":"decimal","precision":60,"scale":{scale}}}"#);
    assert_eq!(typed("\"int\"", Value::Int(-7)), pair("-7", "-7"));
    assert_eq!(typed("\"long\"", Value::Long(i64::MIN)), pair("-9223372036854775808", "-9223372036854775808"));
    assert_eq!(typed(&bytes(0), decimal(&[5])), pair("5", "\"5\""));
    assert_eq!(typed(&bytes(3), decimal(&[0xff])), pair("-0.001", "\"-0.001\""));
    assert_eq!(typed(&bytes(2), decimal(&[0])), pair("0.00", "\"0.00\""));
    // 10^20 at a scale of 20 is 1; its zeros count in the history only.
    let one_at_20 = 100_000_000_000_000_000_000i128.to_be_bytes();
    assert_eq!(typed(&bytes(20), decimal(&one_at_20)), pair("1.000000000000", "\"1.00000000000000000000\""));
    let huge = [&[0x80][..], &[0; 19]].concat(); // -2^159
    assert_eq!(
        typed(&bytes(1), decimal(&huge)),
        pair("a decimal of more digits", "\"-73075081866545145910184241635814150982796627148.8\"")
    );
    assert_eq!(typed("\"double\"", Value::Double(0.1)), pair("a double, which is not exact", "0.1"));
    assert_eq!(typed("\"float\"", Value::Float(0.1)).1, "0.1");
    assert_eq!(typed("\"double\"", Value::Double(f64::NAN)).1, "\"NaN\"");
    assert_eq!(typed("\"bytes\"", Value::Bytes(vec![0, 255])).1, "\"AP8=\"");
    assert_eq!(typed(r#"{"type":"int","logicalType":"date"}"#, Value::Date(-1)).1, "\"1969-12-31\"");
    assert_eq!(
        typed(r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, Value::Enum(1, "B".into())),
        pair("\"B\"", "\"B\"")
    );
    assert_eq!(typed(r#"{"type":"array","items":"null"}"#, Value::Array(vec![Value::Null; 2])).1, "[null,null]");
    // 18 digits before the point and 12 behind it are what an event may have.
    for (scale, digits) in [(0, 18), (2, 20), (12, 30)] {
        let beyond = 10i128.pow(digits);
        let read = |number: i128| typed(&bytes(scale), decimal(&number.to_be_bytes())).0;
        assert_eq!(
            (read(beyond), read(-beyond)),
            ("a decimal of more digits".to_owned(), "a decimal of more digits".to_owned())
        );
        assert_eq!(read(beyond - 1), Decimal::new(beyond - 1, scale as u8).to_string());
        assert_eq!(read(1 - beyond), Decimal::new(1 - beyond, scale as u8).to_string());
    }
    let micros = r#"{"type":"long","logicalType":"timestamp-micros"}"#;
    assert_eq!(typed(micros, Value::TimestampMicros(1_999)).1, "\"1970-01-01T00:00:00.001999Z\"");
    let nanos = r#"{"type":"long","logicalType":"timestamp-nanos"}"#;
    assert_eq!(typed(nanos, Value::TimestampNanos(1_999)).1, "\"1970-01-01T00:00:00.000001999Z\"");
    assert_eq!(one("\"string\"", Value::String("a\0b".into())), Err(Reason::Unrepresentable));
}

#[test]
fn one_topic_may_carry_a_union_of_records() {
    let schema = r#"[{"type":"record","name":"A","fields":[{"name":"id","type":"string"}]},
        {"type":"record","name":"Made","fields":[{"name":"size","type":"int"}]}]"#;
    let program = compile(schema);
    let event = program.read(&[2, 84]).unwrap();
    assert_eq!((event.record, event.json.as_str()), ("Made", r#"{"size":42}"#));
    assert_eq!(program.read(&[4, 84]).unwrap_err().reason, Reason::InvalidAvro);
}

#[test]
fn schemas_without_records_and_with_open_ends_are_unsupported() {
    let refused = |schema: &str| Program::compile(&Reader::new(SHAPE), schema, &[]).is_err();
    assert!(refused("\"string\""));
    assert!(refused(r#"["null",{"type":"record","name":"A","fields":[]}]"#));
    assert!(refused(r#"{"type":"record","name":"A","fields":[{"name":"b","type":"Missing"}]}"#));
    assert!(refused("{"));
    let reference = r#"{"type":"record","name":"Missing","fields":[{"name":"c","type":"int"}]}"#.to_owned();
    let schema = r#"{"type":"record","name":"A","fields":[{"name":"b","type":"Missing"}]}"#;
    assert!(Program::compile(&Reader::new(SHAPE), schema, &[reference]).is_ok());
}

const RECURSIVE: &str = r#"{"type":"record","name":"Made","fields":[{"name":"note","type":["null","Made"]},
    {"name":"rows","type":{"type":"array","items":{"type":"record","name":"Row","fields":[]}}},
    {"name":"id","type":{"type":"map","values":"string"}}]}"#;

#[test]
fn lies_about_lengths_and_depths_are_refused_within_bounds() {
    let program = compile(RECURSIVE);
    let reason = |body: &[u8]| program.read(body).unwrap_err().reason;
    assert_eq!(program.read(&[0, 0, 0]).unwrap().json, r#"{"note":null,"rows":[],"id":{}}"#);
    assert_eq!(reason(&[2; 100]), Reason::NestingTooDeep);
    // A list of 2^62 rows that take no bytes.
    let long = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    assert_eq!(reason(&[&[0][..], &long].concat()), Reason::Unrepresentable);
    // The same as a negative count, with a size in bytes.
    let negative = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(reason(&[&[0][..], &negative, &[0]].concat()), Reason::Unrepresentable);
    assert_eq!(reason(&[0xff; 12]), Reason::InvalidAvro); // a number of more than 64 bits
    assert_eq!(reason(&[&[0, 0, 2][..], &long].concat()), Reason::InvalidAvro); // a key longer than the body
    assert_eq!(reason(&[0, 0, 2, 1]), Reason::InvalidAvro); // a key of length -1
    assert_eq!(reason(&[0, 0]), Reason::InvalidAvro);
    assert_eq!(reason(&[0, 0, 0, 0]), Reason::InvalidAvro);
}

#[test]
fn a_number_has_room_for_64_bits_and_not_for_one_more() {
    let schema = r#"{"type":"record","name":"Made","fields":[{"name":"size","type":"long"}]}"#;
    let program = compile(schema);
    let read = |last: u8| program.read(&[&[0xff; 9][..], &[last]].concat()).map(|event| event.json);
    assert_eq!(read(0).unwrap(), r#"{"size":-4611686018427387904}"#);
    assert_eq!(read(1).unwrap(), r#"{"size":-9223372036854775808}"#);
    for beyond in [2, 3, 0x7f, 0x81] {
        assert_eq!(read(beyond).unwrap_err().reason, Reason::InvalidAvro, "{beyond}");
    }
}

#[test]
fn a_text_grows_by_what_its_body_allows_and_no_further() {
    let mut text = Text::new(10);
    text.raw(&" ".repeat(32 * 10 + 4_096));
    assert!(text.check().is_ok());
    text.raw(" ");
    assert_eq!(text.check().unwrap_err().reason, Reason::Unrepresentable);
}

#[test]
fn texts_are_escaped_where_json_asks_for_it_and_nowhere_else() {
    for text in ["", "a b", "two \" \" quotes", "\\ \\", "\u{1f} \u{20} \u{7f}", "größe\n\t\u{1}"] {
        let mut written = Text::new(100);
        written.string(text).unwrap();
        assert_eq!(written.finish(), serde_json::to_string(text).unwrap().replace("\\t", "\\u0009"), "{text:?}");
    }
}

#[test]
fn a_decimal_has_a_scale_up_to_its_bound() {
    let compiled = |scale: usize| {
        let decimal = format!(r#"{{"type":"bytes","logicalType":"decimal","precision":2000,"scale":{scale}}}"#);
        let schema = format!(r#"{{"type":"record","name":"Made","fields":[{{"name":"size","type":{decimal}}}]}}"#);
        Program::compile(&Reader::new(SHAPE), &schema, &[])
    };
    assert!(compiled(999).is_ok() && compiled(1_000).is_ok());
    let refused = compiled(1_001).unwrap_err().to_string();
    assert!(refused.contains("a scale of 1001, at most 1000"), "{refused}");
}

#[test]
fn a_number_is_the_same_in_however_many_bytes() {
    let written = |bytes: &[u8]| {
        let mut text = Text::new(bytes.len());
        text.decimal(bytes, 0).map(|()| (small_integer(bytes), text.finish().trim_matches('"').to_owned()))
    };
    let padded = |fill: u8, count: usize, rest: &[u8]| [&vec![fill; count][..], rest].concat();
    for count in [0, 1, 14, 15, 16, 30] {
        assert_eq!(written(&padded(0, count, &[5])), Ok((Some(5), "5".to_owned())), "{count}");
        assert_eq!(written(&padded(0xff, count, &[0xfb])), Ok((Some(-5), "-5".to_owned())), "{count}");
    }
    let (least, most) = (i128::MIN.to_be_bytes(), i128::MAX.to_be_bytes());
    for (bytes, number) in [(&least, i128::MIN), (&most, i128::MAX)] {
        assert_eq!(written(bytes), Ok((Some(number), number.to_string())));
        assert_eq!(
            written(&padded(if number < 0 { 0xff } else { 0 }, 3, bytes)),
            Ok((Some(number), number.to_string()))
        );
    }
    // One more and one less than these, and the number whose last sixteen bytes are nothing.
    let beyond = "170141183460469231731687303715884105728";
    assert_eq!(written(&padded(0, 1, &least)), Ok((None, beyond.to_owned())));
    assert_eq!(written(&padded(0xff, 1, &most)), Ok((None, "-170141183460469231731687303715884105729".to_owned())));
    let nothing = [0; 16];
    assert_eq!(written(&padded(0xff, 1, &nothing)), Ok((None, "-340282366920938463463374607431768211456".to_owned())));

    assert!(written(&[0x7f; 416]).is_ok());
    assert_eq!(written(&[0x7f; 417]).unwrap_err().reason, Reason::Unrepresentable);
    assert!(written(&padded(0, 500, &[1])).is_ok(), "it has one digit");
}

#[test]
fn a_body_may_be_nested_to_the_bound_and_a_list_is_read_one_row_beyond_its_own() {
    let program = compile(r#"{"type":"record","name":"Made","fields":[{"name":"note","type":["null","Made"]}]}"#);
    let nested = |records: usize| program.read(&[&vec![2; records - 1][..], &[0]].concat()).map(drop);
    assert_eq!(nested(MAX_DEPTH), Ok(()));
    assert_eq!(nested(MAX_DEPTH + 1).unwrap_err().reason, Reason::NestingTooDeep);

    // Beside each other there may be more.
    let lists = |kind: &str| {
        let fields = (0..2 * MAX_DEPTH).map(|number| format!(r#"{{"name":"f{number}","type":{kind}}}"#));
        format!(r#"{{"type":"record","name":"Made","fields":[{}]}}"#, fields.collect::<Vec<_>>().join(","))
    };
    for kind in [r#"{"type":"array","items":"int"}"#, r#"{"type":"map","values":"int"}"#] {
        assert!(compile(&lists(kind)).read(&[0; 2 * MAX_DEPTH]).is_ok(), "{kind}");
    }

    let row = r#"{"type":"record","name":"Row","fields":[{"name":"size","type":"int"}]}"#;
    let rows = format!(r#"{{"name":"rows","type":{{"type":"array","items":{row}}}}}"#);
    let program = compile(&format!(r#"{{"type":"record","name":"Made","fields":[{rows}]}}"#));
    for (count, read) in [(9_999, 9_999), (10_000, 10_000), (10_001, 10_001), (10_002, 10_001), (10_100, 10_001)] {
        let body = [encode(r#""long""#, Value::Long(count)), vec![0; count as usize + 1]].concat();
        let event = program.read(&body).unwrap();
        let Some(Typed::Rows(rows)) = field(&event, "rows") else { panic!("no rows") };
        assert_eq!((rows.len(), event.json.matches("size").count()), (read, count as usize));
    }
}

#[test]
fn what_needs_no_leniency_stays_as_it_is() {
    let unchanged = [
        r#"{"fields":[],"name":"A","namespace":"","type":"record"}"#,
        r#"{"fields":[{"name":"a","type":{"name":"error","symbols":["X"],"type":"enum"}},{"name":"b","type":{"type":"error"}}],"name":"A","type":"record"}"#,
    ];
    for schema in unchanged {
        assert_eq!(Plain::default().of(schema), schema);
    }
}

#[test]
fn records_within_all_kinds_of_fields_are_known_with_their_defaults() {
    const KINDS: Shape = Shape {
        fields: &["text", "price", "count"],
        schemas: &[r#"{"type":"record","name":"Outer","fields":[
            {"name":"list","type":{"type":"array","items":{"type":"record","name":"InList","fields":[
                {"name":"text","type":"string","default":"none"}]}}},
            {"name":"map","type":{"type":"map","values":{"type":"record","name":"InMap","fields":[
                {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2},
                 "default":"\u0001\u002c"}]}}},
            {"name":"either","type":["null",{"type":"record","name":"InUnion","fields":[
                {"name":"count","type":["int","null"],"default":4},
                {"name":"price","type":[{"type":"bytes","logicalType":"decimal","precision":9,"scale":3},"null"],
                 "default":"\u00ff"}]}]}]}"#],
        ..Shape::NONE
    };
    let reader = Reader::new(KINDS);
    let minus = Typed::Decimal(Decimal::new(-1, 3));
    for (name, presets) in [
        ("InList", &[(0, Typed::Text("none"))][..]),
        ("InMap", &[(1, Typed::Decimal(Decimal::new(300, 2)))]),
        ("InUnion", &[(2, Typed::Integer(4)), (1, minus)]),
    ] {
        let schema = format!(r#"{{"type":"record","name":"{name}","fields":[]}}"#);
        let program = Program::compile(&reader, &schema, &[]).unwrap();
        let event = program.read(&[]).unwrap();
        assert_eq!((event.record, event.is_ours), (name, true));
        assert_eq!(event.fields.as_slice(), presets, "{name}");
    }
}

/// The magnitude's digits, one multiplication by 256 after the other.
fn by_hand(bytes: &[u8]) -> String {
    let is_negative = bytes[0] >= 0x80;
    let mut digits: Vec<u32> = vec![0]; // least significant first
    let mut shift_in = |factor: u32, add: u32| {
        let mut carry = add;
        for digit in &mut digits {
            let value = *digit * factor + carry;
            (*digit, carry) = (value % 10, value / 10);
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    };
    for byte in bytes {
        shift_in(256, u32::from(if is_negative { !*byte } else { *byte }));
    }
    shift_in(1, u32::from(is_negative)); // two's complement
    let text: String = digits.iter().rev().map(u32::to_string).collect();
    text.trim_start_matches('0').to_owned()
}

proptest! {
    #[test]
    fn random_bytes_never_panic_nor_grow_beyond_the_bound(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for schema in [RECURSIVE, SHAPE.schemas[0]] {
            if let Ok(event) = compile(schema).read(&body) {
                prop_assert!(event.json.len() <= 4 * 1024 + 33 * body.len() + 200);
                prop_assert!(serde_json::from_str::<serde_json::Value>(&event.json).is_ok());
            }
        }
    }

    #[test]
    fn short_decimals_are_written_as_our_own_type_writes_them(number in any::<i64>(), scale in 0usize..=12) {
        let field_type = format!(r#"{{"type":"bytes","logicalType":"decimal","precision":20,"scale":{scale}}}"#);
        let (_, json) = one(&field_type, decimal(&number.to_be_bytes())).unwrap();
        let expected = crate::domain::decimal::Decimal::new(number.into(), scale as u8);
        prop_assert_eq!(json, format!("\"{expected}\""));
    }

    #[test]
    fn long_decimals_are_written_digit_for_digit(bytes in proptest::collection::vec(any::<u8>(), 1..40), scale in 0usize..30) {
        let field_type = format!(r#"{{"type":"bytes","logicalType":"decimal","precision":95,"scale":{scale}}}"#);
        let (_, json) = one(&field_type, decimal(&bytes)).unwrap();
        let places = json.trim_matches('"').split_once('.').map(|(_, fraction)| fraction.len());
        prop_assert_eq!(places, (scale > 0).then_some(scale));
        let digits = json.trim_matches('"').replace('.', "");
        let expected = by_hand(&bytes);
        let shown = digits.trim_start_matches('-').trim_start_matches('0');
        prop_assert_eq!(shown, expected);
        prop_assert_eq!(digits.starts_with('-'), bytes[0] >= 0x80);
    }
}

#[test]
fn a_uuid_is_text_however_it_is_stored() {
    let uuid = "0198f1a2-b3c4-7d5e-8f60-718293a4b5c6";
    let expected = (uuid.to_owned(), format!("\"{uuid}\""));
    let value = || Value::Uuid(uuid.parse().unwrap());
    for field_type in
        [r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#, r#"{"type":"bytes","logicalType":"uuid"}"#]
    {
        assert_eq!(one(field_type, value()), Ok(expected.clone()), "{field_type}");
    }
    assert_eq!(Typed::Uuid(0x0198_f1a2_b3c4_7d5e_8f60_7182_93a4_b5c6).text().as_deref(), Some(uuid));
}

/// A big-decimal as Java writes it: bytes that hold the digits (as bytes) and the scale (as an int).
fn big_decimal(digits: &[u8], scale: i32) -> Result<(String, String), Reason> {
    let schema = r#"{"type":"record","name":"Other","fields":[{"name":"amount","type":{"type":"bytes","logicalType":"big-decimal"}}]}"#;
    let inner = r#"{"type":"record","name":"I","fields":[{"name":"d","type":"bytes"},{"name":"s","type":"int"}]}"#;
    let inner = encode(inner, record(vec![("d", Value::Bytes(digits.to_vec())), ("s", Value::Int(scale))]));
    let body = encode(r#""bytes""#, Value::Bytes(inner));
    let program = compile(schema);
    let event = program.read(&body).map_err(|poison| poison.reason)?;
    Ok((field(&event, "amount").unwrap().shown(), event.json.replacen(r#"{"amount":"#, "", 1).replacen('}', "", 1)))
}

#[test]
fn a_big_decimal_is_its_value_whatever_its_scale() {
    let pair = |shown: &str, json: &str| Ok((shown.to_owned(), format!("\"{json}\"")));
    assert_eq!(big_decimal(&[0x03, 0xe7], 2), pair("9.99", "9.99"));
    assert_eq!(big_decimal(&[0xf4], -2), pair("-1200", "-1200"));
    assert_eq!(big_decimal(&[0], -1000), pair("0", "0"));
    assert_eq!(big_decimal(&[1], -20), pair("a decimal of more digits", "100000000000000000000"));
    assert_eq!(big_decimal(&[1], 13), pair("a decimal of more digits", "0.0000000000001"));
    assert_eq!(big_decimal(&[1], 1001), Err(Reason::Unrepresentable));
    assert_eq!(big_decimal(&[1], i32::MIN), Err(Reason::Unrepresentable));
    let program = compile(
        r#"{"type":"record","name":"O","fields":[{"name":"a","type":{"type":"bytes","logicalType":"big-decimal"}}]}"#,
    );
    for broken in [&[2, 0][..], &[8, 2, 1, 0, 0], &[4, 4, 1]] {
        assert_eq!(program.read(broken).unwrap_err().reason, Reason::InvalidAvro, "{broken:?}");
    }
}

#[test]
fn equal_decimals_are_treated_alike_in_json_and_avro() {
    let written = format!("9.99{}", "0".repeat(16));
    let digits = 9_990_000_000_000_000_000i128.to_be_bytes();
    let field_type = r#"{"type":"bytes","logicalType":"decimal","precision":30,"scale":18}"#;
    let avro = one(field_type, decimal(&digits)).unwrap();
    assert_eq!(avro.1, format!("\"{written}\""));
    assert_eq!(avro.0, crate::domain::decimal::Decimal::parse(&written).unwrap().to_string());
}

#[test]
fn a_refused_field_of_avro_is_told_what_avro_has_for_it() {
    use crate::codec::fields::{decimal, timestamp};
    for (logical, unit) in [("millis", 1), ("micros", 1_000), ("nanos", 1_000_000)] {
        let name = format!("local-timestamp-{logical}");
        let schema = format!(
            r#"{{"type":"record","name":"O","fields":[{{"name":"at","type":{{"type":"long","logicalType":"{name}"}}}}]}}"#
        );
        let body = encode(r#""long""#, Value::Long(1_700_000_000_000 * unit));
        let program = compile(&schema);
        let event = program.read(&body).unwrap();
        let detail = timestamp("occurredAt", field(&event, "at")).unwrap_err().detail;
        assert!(detail.contains(&name) && detail.contains("without its zone"), "{detail}");
        assert!(detail.contains("expected the logical type timestamp-millis"), "{detail}");
    }
    let detail = decimal("price", Some(&Typed::Other("a double, which is not exact"))).unwrap_err().detail;
    assert!(detail.contains("the logical type decimal"), "{detail}");
}

#[test]
fn moments_that_cannot_be_stored_or_shown_are_refused_as_what_they_are() {
    use crate::codec::fields::timestamp;
    // The calendar takes no fraction of its last second.
    let (first, last) = (Micros::EARLIEST.0, jiff::Timestamp::MAX.as_second() * 1_000_000);
    for (logical, count, moment) in [
        ("timestamp-micros", first, Some(first)),
        ("timestamp-micros", first - 1, None),
        ("timestamp-millis", first / 1_000, Some(first)),
        ("timestamp-millis", first / 1_000 - 1, None),
        ("timestamp-micros", last, Some(last)),
        ("timestamp-micros", last + 1, None),
        ("timestamp-millis", i64::MIN, None),
        ("timestamp-nanos", i64::MAX, Some(i64::MAX / 1_000)),
    ] {
        let schema = format!(
            r#"{{"type":"record","name":"O","fields":[{{"name":"at","type":{{"type":"long","logicalType":"{logical}"}}}}]}}"#
        );
        let body = encode(r#""long""#, Value::Long(count));
        let program = compile(&schema);
        let event = program.read(&body).unwrap();
        match (timestamp("occurredAt", field(&event, "at")), moment) {
            (Ok(read), Some(moment)) => assert_eq!(read, Micros(moment), "{logical} {count}"),
            (Err(poison), None) => {
                let said = "field occurredAt is a time after the year 9999 or before 24 November 4714 BC; expected ";
                assert!(poison.reason == Reason::SchemaViolation && poison.detail.starts_with(said), "{poison}");
            }
            (read, _) => panic!("{logical} {count}: {read:?}"),
        }
    }
}

#[test]
fn times_are_spelled_out_for_sql_and_are_the_numbers_that_they_are_for_views() {
    let day = 86_400_000;
    for (kind, logical, count, spelled, plain) in [
        ("int", "time-millis", 45_296_500, "\"12:34:56.5\"", "45296500"),
        ("long", "time-micros", 45_296_000_001, "\"12:34:56.000001\"", "45296000001"),
        ("int", "time-millis", day - 1, "\"23:59:59.999\"", "86399999"),
        ("int", "time-millis", day, "86400000", "86400000"),
        ("int", "time-millis", -1, "-1", "-1"),
        ("long", "local-timestamp-millis", 1_700_000_000_000, "\"2023-11-14T22:13:20\"", "1700000000000"),
        ("long", "local-timestamp-micros", 1_700_000_000_000_001, "\"2023-11-14T22:13:20.000001\"", "1700000000000001"),
        (
            "long",
            "local-timestamp-nanos",
            1_700_000_000_000_000_001,
            "\"2023-11-14T22:13:20.000000001\"",
            "1700000000000000001",
        ),
        ("long", "local-timestamp-millis", i64::MAX, "9223372036854775807", "9223372036854775807"),
        ("long", "timestamp-micros", 253_402_300_799_999_999, "\"9999-12-31T23:59:59.999999Z\"", "253402300799999999"),
        ("long", "timestamp-micros", 1_700_000_000_000_000, "\"2023-11-14T22:13:20Z\"", "\"2023-11-14T22:13:20Z\""),
    ] {
        let schema = format!(
            r#"{{"type":"record","name":"O","fields":[{{"name":"x","type":{{"type":"{kind}","logicalType":"{logical}"}}}}]}}"#
        );
        let body = encode(r#""long""#, Value::Long(count));
        for (shape, expected) in [(Shape::SQL, spelled), (Shape::NONE, plain)] {
            let program = Program::compile(&Reader::new(shape), &schema, &[]).unwrap();
            assert_eq!(program.read(&body).unwrap().json, format!("{{\"x\":{expected}}}"), "{logical} {count}");
        }
    }
}

#[test]
fn schemas_that_java_and_python_let_through_are_read() {
    let field = |kind: &str, extra: &str| format!(r#"{{"name":"size","type":{kind}{extra}}}"#);
    let made = |namespace: &str, field: &str| {
        format!(r#"{{"type":"record","name":"Made","namespace":"{namespace}","fields":[{field}]}}"#)
    };
    let size = field("\"int\"", "");
    let wrongly_preset = [
        field("\"int\"", r#","default":"0""#),
        field("\"int\"", r#","default":null"#),
        field(r#"["int","null"]"#, r#","default":"x""#),
        field(r#"{"type":"long","logicalType":17}"#, ""),
        field("\"int\"", r#","aliases":["a-b"],"doc":7,"order":"sideways""#),
    ];
    let namespaces = ["com.my-shop", "com.shop.Outer$", "com.größe", "com..shop", "7eleven.orders"];
    let schemas =
        namespaces.iter().map(|namespace| made(namespace, &size)).chain(wrongly_preset.iter().map(|f| made("a", f)));
    let schemas = schemas.chain([made("a", &size).replacen("record", "error", 1)]);
    for schema in schemas {
        let body = if schema.contains('[') && schema.contains(r#"["int","null"]"#) { &[0, 84][..] } else { &[84] };
        let program = compile(&schema);
        let event = program.read(body).unwrap();
        assert_eq!((event.record, event.is_ours, event.json.as_str()), ("Made", true, r#"{"size":42}"#), "{schema}");
        assert_eq!(self::field(&event, "size"), Some(&Typed::Integer(42)), "{schema}");
    }
}

#[test]
fn names_in_other_letters_are_told_as_they_were_written() {
    let schema = r#"{"type":"record","name":"Bestell-Ereignis","namespace":"de.my-shop","fields":[
        {"name":"größe","type":"int"},
        {"name":"a.\"b","type":{"type":"enum","name":"Art","symbols":["IN-ARBEIT","2ND"],"default":"FEHLT"}},
        {"name":"next","type":["null","de.my-shop.Bestell-Ereignis"]},
        {"name":"same","type":["null","Bestell-Ereignis","Art"]}]}"#;
    let program = compile(schema);
    let event = program.read(&[84, 2, 0, 4, 0]).unwrap();
    assert_eq!((event.record, event.is_ours), ("Bestell-Ereignis", false));
    assert_eq!(event.json, r#"{"größe":42,"a.\"b":"2ND","next":null,"same":"IN-ARBEIT"}"#);
    let reference = r#"{"type":"fixed","name":"Geld","namespace":"de.my-shop","size":1}"#.to_owned();
    let schema = r#"{"type":"record","name":"A","fields":[{"name":"b","type":"de.my-shop.Geld"}]}"#;
    let program = Program::compile(&Reader::new(SHAPE), schema, &[reference]).unwrap();
    assert_eq!(program.read(&[255]).unwrap().json, r#"{"b":"/w=="}"#);
    let nul = r#"{"type":"record","name":"A","fields":[{"name":"b\u0000","type":"int"}]}"#;
    assert!(Program::compile(&Reader::new(SHAPE), nul, &[]).is_err(), "Postgres could not store it");
}

/// What `work` gives on a stack of so many bytes; an overflow ends the whole process.
fn on_a_stack<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(bytes).spawn_scoped(scope, work).unwrap();
        thread.join().unwrap()
    })
}

#[test]
fn records_that_name_each_other_may_be_a_chain_of_any_length() {
    let record = |number: usize| {
        let kind = if number == 1 { r#""int""#.to_owned() } else { format!(r#"["null","R{}"]"#, number - 1) };
        format!(r#"{{"type":"record","name":"R{number}","fields":[{{"name":"p","type":{kind}}}]}}"#)
    };
    let defined = |number: usize| format!(r#"{{"name":"f{number}","type":{}}}"#, record(number));
    let fields = (1..=6_000).map(defined).collect::<Vec<_>>().join(",");
    let all = format!(r#"{{"type":"record","name":"Defs","fields":[{fields}]}}"#);
    let schema = r#"{"type":"record","name":"Made","fields":[{"name":"note","type":"R6000"}]}"#;
    // As many bytes as threads have that nobody gave more: the length needs none.
    let program =
        on_a_stack(2 * 1024 * 1024, || Program::compile(&Reader::new(SHAPE), schema, &[all]).map_err(|why| why.0));
    let program = program.unwrap();
    assert_eq!(program.read(&[2, 2, 0]).unwrap().json, r#"{"note":{"p":{"p":{"p":null}}}}"#);
    assert_eq!(program.read(&[2; 100]).unwrap_err().reason, Reason::NestingTooDeep);
}

/// A record that holds lists of lists of ... of the next one, which is a schema of its own.
fn chain(count: usize, lists: usize) -> (String, Vec<String>) {
    let schema = |number: usize| {
        let next = if number + 1 == count { "int".to_owned() } else { format!("S{}", number + 1) };
        let list = |kind: String, _| format!(r#"{{"type":"array","items":{kind}}}"#);
        let kind = (0..lists).fold(format!(r#""{next}""#), list);
        format!(r#"{{"type":"record","name":"S{number}","fields":[{{"name":"p","type":{kind}}}]}}"#)
    };
    (schema(0), (1..count).map(schema).collect())
}

#[test]
fn schemas_that_refer_to_each_other_have_levels_up_to_the_bound() {
    // Three levels each for the record, its fields and the one field.
    for (count, lists, fits) in [(10, 97, true), (10, 98, false), (60, 120, false), (1, 120, true)] {
        let (schema, references) = chain(count, lists);
        let compiled = on_a_stack(Program::STACK, || Program::compile(&Reader::new(SHAPE), &schema, &references));
        match compiled {
            Ok(_) => assert!(fits, "{count} of {lists}"),
            Err(why) => {
                assert!(!fits && why.0.contains("levels, at most 1000"), "{count} of {lists}: {why}");
            }
        }
    }
}

#[test]
fn a_reference_that_is_a_type_of_another_name_is_that_type() {
    let reference = r#"{"name":"X","type":{"name":"Y","type":{"type":"record","name":"Z","fields":[]}}}"#.to_owned();
    let schema = |name: &str| format!(r#"{{"type":"record","name":"A","fields":[{{"name":"b","type":"{name}"}}]}}"#);
    let compile = |name: &str| Program::compile(&Reader::new(SHAPE), &schema(name), std::slice::from_ref(&reference));
    assert_eq!(compile("Z").unwrap().read(&[]).unwrap().json, r#"{"b":{}}"#);
    assert!(compile("X").is_err());
}
