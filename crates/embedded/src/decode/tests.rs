//! Records as they come, good and bad.
#![allow(clippy::unwrap_used)]

use datafusion::arrow::util::display::array_value_to_string;
use streamview_core::codec::avro::{Program, Reader, Shape};
use streamview_manager::catalog::infer::Sample;
use streamview_manager::catalog::{Column, Format, columns_of_avro, exact_numbers};

use super::*;
use crate::log::{Batch, Place};

fn source(columns: &[(&str, &str)]) -> Source {
    let column =
        |(name, of): &(&str, &str)| Column { name: (*name).to_owned(), data_type: of.parse().unwrap(), nullable: true };
    Source {
        name: "orders".to_owned(),
        topic: "orders".to_owned(),
        format: Format::Json,
        columns: columns.iter().map(column).collect(),
        event_time: None,
        table: None,
    }
}

/// The outcomes of records, and what they are as rows.
fn decode(columns: &[(&str, &str)], values: &[&str]) -> (Vec<Result<(), String>>, Vec<Vec<String>>) {
    let mut batch = Batch::default();
    for (offset, value) in (0..).zip(values) {
        let place = Place { topic: 0, partition: 1 };
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"1")), (b"h", Some(b"2"))];
        batch.push((place, offset), Some(5), (Some(b"k"), Some(value.as_bytes())), headers.into_iter());
    }
    let mut decoder = Decoder::new(&source(columns), &[]);
    let outcomes: Vec<_> =
        batch.records().map(|record| decoder.add(&record, record.value.unwrap_or_default())).collect();
    let rows = decoder.take().unwrap();
    let shown = (0..rows.num_rows()).map(|row| {
        let column = |column: &ArrayRef| {
            if column.is_null(row) { "null".to_owned() } else { array_value_to_string(column, row).unwrap() }
        };
        rows.columns().iter().map(column).collect()
    });
    (outcomes, shown.collect())
}

/// What a value of this type becomes.
fn read(of: &str, value: &str) -> Result<String, String> {
    let (mut outcomes, rows) = decode(&[("x", of)], &[&format!("{{\"x\":{value}}}")]);
    outcomes.remove(0).map(|()| rows[0][0].clone())
}

#[test]
fn a_record_of_two_objects_is_one_dead_letter() {
    let values = [
        r#"{"x":1}"#,
        r#"{"x":2}{"x":3}"#,
        r#"{"x":4"#,
        "",
        "[5]",
        "null",
        "\"6\"",
        r#"{"x":7} tail"#,
        r#"{"x":"eight"}"#,
        r#"{"y":9}"#,
        " {\"x\":10}\n",
    ];
    let (outcomes, rows) = decode(&[("x", "int")], &values);
    let is_read: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(is_read, [true, false, false, false, false, false, false, false, false, true, true]);
    // Rows and records still belong together: offsets say which.
    let shown: Vec<(&str, &str)> = rows.iter().map(|row| (row[0].as_str(), row[2].as_str())).collect();
    assert_eq!(shown, [("1", "0"), ("null", "9"), ("10", "10")]);
    let why: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!(why[0], "its value is no JSON object: trailing characters");
    assert_eq!(why[1], "its value is no JSON object: EOF while parsing an object");
    assert_eq!(why[7], "column x: \"eight\" is no int");
}

#[test]
fn nothing_is_rounded_or_taken_for_something_else() {
    for (of, value, expected) in [
        ("bigint", "9007199254740993", Some("9007199254740993")),
        ("bigint", "\"-9223372036854775808\"", Some("-9223372036854775808")),
        ("bigint", "1e3", Some("1000")),
        ("bigint", "1.5", None),
        ("bigint", "9223372036854775808", None),
        ("int", "2147483648", None),
        ("int", "\"1\"", None),
        ("int", "true", None),
        ("double", "1e400", None),
        ("double", "\"12.5\"", None),
        ("double", "\"NaN\"", Some("NaN")),
        ("double", "\"-Infinity\"", Some("-inf")),
        ("decimal(20, 2)", "123456789012345678.10", Some("123456789012345678.10")),
        ("decimal(20, 2)", "\"0.10\"", Some("0.10")),
        ("decimal(20, 2)", "0.105", None),
        ("decimal(4, 2)", "100", None),
        ("string", "1", None),
        ("string", "\"a\\u00e9\\n\"", Some("aé\n")),
        ("string", "\"\\ud800\"", None),
        ("boolean", "1", None),
        ("bytes", "\"aGk=\"", Some("6869")),
        ("bytes", "\"%\"", None),
        ("date", "\"2026-02-28\"", Some("2026-02-28")),
        ("date", "\"2026-02-30\"", None),
        // In UTC it is the day before.
        ("date", "\"2026-01-01T00:30:00+01:00\"", None),
        ("date", "\"20260105\"", None),
        ("date", "\"2026-1-5\"", None),
        ("date", "\"+10999-12-31\"", None),
        ("time", "\"12:34:56.123456\"", Some("12:34:56.123456")),
        ("time", "\"12:34\"", Some("12:34:00")),
        ("time", "\"45296000000\"", None),
        ("time", "\"1:02 PM\"", None),
        ("time", "\"12:34:56Z\"", None),
        ("timestamp(3)", "\"2026-11-28T21:53:28.123Z\"", Some("2026-11-28T21:53:28.123")),
        ("timestamp(3)", "\"2026-11-28 22:53:28.123+01:00\"", Some("2026-11-28T21:53:28.123")),
        ("timestamp(3)", "\"2026-11-28T21:53:28\"", Some("2026-11-28T21:53:28")),
        ("timestamp(6)", "1000", Some("1970-01-01T00:00:01")),
        // Beyond what 64 bits hold in nanoseconds, as ends that are none are often written.
        ("timestamp(6)", "\"9999-12-31T23:59:59.999999+00:00\"", Some("9999-12-31T23:59:59.999999")),
        ("timestamp(3)", "\"0001-01-01T00:00:00Z\"", Some("0001-01-01T00:00:00")),
        ("timestamp(9)", "\"9999-12-31T00:00:00Z\"", None),
        ("timestamp(3)", "\"yesterday\"", None),
        ("timestamp(9)", "99999999999999", None),
        ("array<int>", "[1,null,3]", Some("[1, , 3]")),
        ("array<int>", "[1,\"x\"]", None),
        ("map<string, int>", r#"{"a":1,"b":null,"a":2}"#, Some("{a: 2, b: }")),
        ("row<a int, b array<string>>", r#"{"b":["x"],"c":1}"#, Some("{a: , b: [x]}")),
        ("row<a int>", "[]", None),
        ("int", "null", Some("null")),
    ] {
        assert_eq!(read(of, value).ok().as_deref(), expected, "{of} {value}: {:?}", read(of, value));
    }
    let long = format!("\"{}\"", "x".repeat(500));
    assert!(read("int", &long).unwrap_err().len() < 80, "a value is told in short");
}

#[test]
fn every_record_has_its_hidden_columns() {
    let (_, rows) = decode(&[("x", "int")], &[r#"{"x":1,"x":2}"#]);
    assert_eq!(rows[0], ["2", "1", "0", "k", "1970-01-01T00:00:00.005", "{h: 2}"]);
    let (_, none) = decode(&[("x", "int")], &[]);
    assert!(none.is_empty());
}

#[test]
fn nested_values_keep_their_rows_where_others_are_missing() {
    let columns = [("a", "array<row<n decimal(5, 1)>>"), ("m", "map<string, array<int>>"), ("r", "row<x row<y int>>")];
    let values = [
        r#"{"a":[{"n":1.5},{}],"m":{"k":[1]},"r":{"x":{"y":1}}}"#,
        "{}",
        r#"{"a":[],"m":{},"r":{}}"#,
        r#"{"a":null,"m":{"k":null},"r":{"x":null}}"#,
    ];
    let (outcomes, rows) = decode(&columns, &values);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let shown: Vec<&[String]> = rows.iter().map(|row| &row[..3]).collect();
    assert_eq!(shown[0], ["[{n: 1.5}, {n: }]", "{k: [1]}", "{x: {y: 1}}"]);
    assert_eq!(shown[1], ["null", "null", "null"]);
    assert_eq!(shown[2], ["[]", "{}", "{x: }"]);
    assert_eq!(shown[3], ["null", "{k: }", "{x: }"]);
}

#[test]
fn columns_that_no_query_reads_are_not_looked_at() {
    let mut batch = Batch::default();
    let place = Place { topic: 0, partition: 0 };
    batch.push((place, 0), None, (Some(b"k"), Some(br#"{"bad":"x","x":1}"#)), std::iter::empty());
    let needed = [false, true, true, true, false, true, false];
    let mut decoder = Decoder::new(&source(&[("bad", "int"), ("x", "int")]), &needed);
    for record in batch.records() {
        decoder.add(&record, record.value.unwrap_or_default()).unwrap();
    }
    let rows = decoder.take().unwrap();
    assert!(rows.column(0).is_null(0) && rows.column(4).is_null(0));
    assert!(rows.column(1).is_valid(0));
}

/// A field of this type of Avro: its column, and what the body of a record becomes that holds nothing else.
fn of_avro(field_type: &str, body: &[u8]) -> (String, Result<String, String>) {
    let schema = format!(r#"{{"type":"record","name":"O","fields":[{{"name":"x","type":{field_type}}}]}}"#);
    let of = columns_of_avro(&schema, &[]).unwrap().remove(0).data_type.to_string();
    let program = Program::compile(&Reader::new(Shape::SQL), &schema, &[]).unwrap();
    let event = program.read(body).unwrap();
    let (mut outcomes, rows) = decode(&[("x", &of)], &[&exact_numbers(&event.json)]);
    (of, outcomes.remove(0).map(|()| rows[0][0].clone()))
}

/// A whole number as Avro writes it.
fn whole(number: i64) -> Vec<u8> {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

#[test]
fn every_type_of_avro_is_read_as_what_the_catalogue_says_it_is() {
    let logical = |of: &str, logical: &str| format!(r#"{{"type":"{of}","logicalType":"{logical}"}}"#);
    for (field_type, body, expected) in [
        ("\"boolean\"".to_owned(), vec![1], "boolean true"),
        ("\"int\"".to_owned(), whole(-7), "int -7"),
        ("\"long\"".to_owned(), whole(i64::MAX), "bigint 9223372036854775807"),
        ("\"float\"".to_owned(), 0.1_f32.to_le_bytes().to_vec(), "double 0.1"),
        ("\"double\"".to_owned(), f64::INFINITY.to_le_bytes().to_vec(), "double inf"),
        ("\"double\"".to_owned(), f64::NEG_INFINITY.to_le_bytes().to_vec(), "double -inf"),
        ("\"float\"".to_owned(), f32::NAN.to_le_bytes().to_vec(), "double NaN"),
        ("\"string\"".to_owned(), vec![4, b'h', b'i'], "string hi"),
        ("\"bytes\"".to_owned(), vec![4, b'h', b'i'], "bytes 6869"),
        (logical("int", "date"), whole(20_787), "date 2026-11-30"),
        (logical("int", "time-millis"), whole(45_296_500), "time 12:34:56.500"),
        (logical("long", "time-micros"), whole(45_296_000_001), "time 12:34:56.000001"),
        (logical("long", "timestamp-millis"), whole(1_700_000_000_123), "timestamp(3) 2023-11-14T22:13:20.123"),
        (logical("long", "timestamp-micros"), whole(1_700_000_000_000_001), "timestamp(6) 2023-11-14T22:13:20.000001"),
        (
            logical("long", "timestamp-micros"),
            whole(253_402_300_799_999_999),
            "timestamp(6) 9999-12-31T23:59:59.999999",
        ),
        (logical("long", "local-timestamp-millis"), whole(1_700_000_000_123), "timestamp(3) 2023-11-14T22:13:20.123"),
        (logical("long", "local-timestamp-micros"), whole(1_700_000_000_000_000), "timestamp(6) 2023-11-14T22:13:20"),
        (
            logical("long", "local-timestamp-nanos"),
            whole(1_700_000_000_000_000_001),
            "timestamp(9) 2023-11-14T22:13:20.000000001",
        ),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}"#.to_owned(),
            vec![4, 0x04, 0xd2],
            "decimal(10, 2) 12.34",
        ),
    ] {
        let (of, read) = of_avro(&field_type, &body);
        assert_eq!(format!("{of} {}", read.as_deref().unwrap_or_else(|why| why)), expected, "{field_type}");
    }
    // Its scale is in each value, so there is no column that has it.
    let schema =
        r#"{"type":"record","name":"O","fields":[{"name":"x","type":{"type":"bytes","logicalType":"big-decimal"}}]}"#;
    assert!(columns_of_avro(schema, &[]).is_err());
}

#[test]
fn every_value_of_a_sample_is_read_by_the_columns_that_were_inferred_from_it() {
    for (texts, expected) in [
        (&["2026-11-28T10:15:30Z", "2026-11-28T10:15:30.123456+01:00"][..], "timestamp(6)"),
        (&["2026-11-28T10:15:30.1234567Z"], "timestamp(9)"),
        // As Java writes it where the seconds are 0, with the name of its zone, and with the comma of ISO 8601.
        (&["2026-11-28T10:15:30Z", "2026-11-28T10:15Z"], "string"),
        (&["2026-11-28T10:15:30+01:00[Europe/Berlin]"], "string"),
        (&["2026-11-28T10:15:30,5Z"], "string"),
        (&["2026-11-28T23:59:60Z"], "string"),
        // Nanoseconds reach from 1677 to 2262.
        (&["2026-11-28T10:15:30.1234567Z", "0001-01-01T00:00:00+00:00"], "timestamp(6)"),
        (&["2026-11-28", "0001-01-01", "9999-12-31"], "date"),
        (&["2026-11-28", "2026-11-28T10:15:30Z"], "string"),
    ] {
        let values: Vec<String> = texts.iter().map(|text| format!("{{\"x\":\"{text}\"}}")).collect();
        let mut sample = Sample::default();
        assert!(values.iter().all(|value| sample.add(value.as_bytes())));
        let of = sample.columns().unwrap().remove(0).data_type.to_string();
        assert_eq!(of, expected, "{texts:?}");
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let (outcomes, _) = decode(&[("x", &of)], &values);
        assert!(outcomes.iter().all(Result::is_ok), "{texts:?}: {outcomes:?}");
    }
}
