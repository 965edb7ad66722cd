//! From columns to JSON. Bytes are base64, moments ISO 8601 in UTC, doubles for which JSON has no number are text.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use serde_json::Value;

/// The largest whole number below which a double holds all of them.
const SAFE: u64 = 1 << 53;

/// How exact numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// In records: every number is a JSON number, with all its digits.
    Plain,
    /// For people and browsers: decimals are text, 64-bit numbers where a double would round them.
    Safe,
}

/// The values of a row.
pub fn values(rows: &RecordBatch, row: usize) -> Vec<Value> {
    let mut text = Vec::new();
    let value = |column: &ArrayRef| {
        text.clear();
        write_value(column, row, Numbers::Safe, &mut text);
        serde_json::from_slice(&text).unwrap_or_default()
    };
    rows.columns().iter().map(value).collect()
}

/// Writes rows as objects.
pub struct Encoder {
    /// Each column's name as it is written before its value.
    names: Vec<Vec<u8>>,
}

impl Encoder {
    /// Of rows with these columns.
    pub fn new<'n>(names: impl Iterator<Item = &'n str>) -> Encoder {
        let written = names.map(|name| {
            let mut written = Vec::new();
            write_text(name, &mut written);
            written.push(b':');
            written
        });
        Encoder { names: written.collect() }
    }

    /// A row as an object.
    pub fn row(&self, rows: &RecordBatch, row: usize) -> Vec<u8> {
        self.object(rows, row, 0..self.names.len())
    }

    /// Some of its columns as an object.
    pub fn object(&self, rows: &RecordBatch, row: usize, columns: impl Iterator<Item = usize>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.names.len() * 24);
        for (number, column) in columns.enumerate() {
            out.push(if number == 0 { b'{' } else { b',' });
            out.extend_from_slice(&self.names[column]);
            write_value(rows.column(column), row, Numbers::Plain, &mut out);
        }
        if out.is_empty() {
            out.push(b'{');
        }
        out.push(b'}');
        out
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Memory takes whatever is written.
    if serde_json::to_writer(&mut *out, text).is_err() {
        out.extend_from_slice(b"\"\"");
    }
}

fn write_shown(shown: impl std::fmt::Display, out: &mut Vec<u8>) {
    if write!(out, "{shown}").is_err() {
        out.extend_from_slice(b"null");
    }
}

fn write_quoted(shown: impl std::fmt::Display, out: &mut Vec<u8>) {
    out.push(b'"');
    write_shown(shown, out);
    out.push(b'"');
}

fn write_double(value: f64, out: &mut Vec<u8>) {
    match value {
        value if value.is_nan() => out.extend_from_slice(b"\"NaN\""),
        value if value.is_infinite() => {
            out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
        }
        value => {
            if serde_json::to_writer(&mut *out, &value).is_err() {
                out.extend_from_slice(b"null");
            }
        }
    }
}

/// A value, in one of the types of [`crate::schema::to_arrow`].
fn write_value(column: &ArrayRef, row: usize, numbers: Numbers, out: &mut Vec<u8>) {
    if column.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    let is_safe = numbers == Numbers::Safe;
    match column.data_type() {
        DataType::Boolean => write_shown(column.as_boolean().value(row), out),
        DataType::Int32 => write_shown(column.as_primitive::<Int32Type>().value(row), out),
        DataType::Int64 => {
            let value = column.as_primitive::<Int64Type>().value(row);
            if is_safe && value.unsigned_abs() > SAFE { write_quoted(value, out) } else { write_shown(value, out) }
        }
        DataType::Float64 => write_double(column.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal128(..) => {
            let value = column.as_primitive::<Decimal128Type>().value_as_string(row);
            if is_safe { write_quoted(value, out) } else { write_shown(value, out) }
        }
        DataType::Utf8 => write_text(column.as_string::<i32>().value(row), out),
        DataType::Binary => write_quoted(STANDARD.encode(column.as_binary::<i32>().value(row)), out),
        DataType::Date32 => match column.as_primitive::<Date32Type>().value_as_date(row) {
            Some(date) => write_quoted(date.format("%Y-%m-%d"), out),
            None => out.extend_from_slice(b"null"),
        },
        DataType::Time64(_) => {
            let time = column.as_primitive::<Time64MicrosecondType>().value_as_time(row);
            match time {
                Some(time) => write_quoted(time.format("%H:%M:%S%.f"), out),
                None => out.extend_from_slice(b"null"),
            }
        }
        DataType::Timestamp(unit, _) => write_timestamp(column, *unit, row, out),
        DataType::List(_) => {
            let entries = column.as_list::<i32>().value(row);
            write_list((0..entries.len()).map(|entry| (None, &entries, entry)), (b'[', b']'), numbers, out);
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1));
            let fields = (0..entries.len()).map(|entry| (Some(names.value(entry)), values, entry));
            write_list(fields, (b'{', b'}'), numbers, out);
        }
        DataType::Struct(fields) => {
            let parts = column.as_struct().columns();
            let fields = fields.iter().zip(parts).map(|(field, part)| (Some(field.name().as_str()), part, row));
            write_list(fields, (b'{', b'}'), numbers, out);
        }
        // There is no other type, see [`crate::schema::canonical`].
        _ => out.extend_from_slice(b"null"),
    }
}

fn write_list<'v>(
    entries: impl Iterator<Item = (Option<&'v str>, &'v ArrayRef, usize)>,
    (open, close): (u8, u8),
    numbers: Numbers,
    out: &mut Vec<u8>,
) {
    out.push(open);
    for (number, (name, column, row)) in entries.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        if let Some(name) = name {
            write_text(name, out);
            out.push(b':');
        }
        write_value(column, row, numbers, out);
    }
    out.push(close);
}

macro_rules! write_moment_of {
    ($column:expr, $row:expr, $kind:ty, $format:literal, $out:expr) => {
        match $column.as_primitive::<$kind>().value_as_datetime($row) {
            Some(moment) => write_quoted(moment.format($format), $out),
            None => $out.extend_from_slice(b"null"),
        }
    };
}

fn write_timestamp(column: &ArrayRef, unit: TimeUnit, row: usize, out: &mut Vec<u8>) {
    match unit {
        TimeUnit::Second => write_moment_of!(column, row, TimestampSecondType, "%Y-%m-%dT%H:%M:%SZ", out),
        TimeUnit::Millisecond => write_moment_of!(column, row, TimestampMillisecondType, "%Y-%m-%dT%H:%M:%S%.3fZ", out),
        TimeUnit::Microsecond => write_moment_of!(column, row, TimestampMicrosecondType, "%Y-%m-%dT%H:%M:%S%.6fZ", out),
        TimeUnit::Nanosecond => write_moment_of!(column, row, TimestampNanosecondType, "%Y-%m-%dT%H:%M:%S%.9fZ", out),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use streamview_manager::catalog::{Column, Format, Source};

    use super::*;
    use crate::decode::Decoder;
    use crate::log::{Batch, Place};

    /// A value of this type, read and written again: in a record, and for people.
    fn written(of: &str, value: &str) -> (String, Value) {
        let column = Column { name: "x\"y".to_owned(), data_type: of.parse().unwrap(), nullable: true };
        let (name, topic) = ("s".to_owned(), "s".to_owned());
        let source = Source { name, topic, format: Format::Json, columns: vec![column], event_time: None, table: None };
        let mut batch = Batch::default();
        let json = format!("{{\"x\\\"y\":{value}}}");
        let place = Place { topic: 0, partition: 0 };
        batch.push((place, 0), None, (None, Some(json.as_bytes())), std::iter::empty());
        let mut decoder = Decoder::new(&source, &[]);
        for record in batch.records() {
            decoder.add(&record, record.value.unwrap()).unwrap();
        }
        let rows = decoder.take().unwrap();
        let encoder = Encoder::new(["x\"y"].into_iter());
        (String::from_utf8(encoder.row(&rows, 0)).unwrap(), values(&rows, 0).remove(0))
    }

    #[test]
    fn values_keep_every_digit_in_records_and_before_people() {
        for (of, value, plain, safe) in [
            ("bigint", "9007199254740993", "9007199254740993", "\"9007199254740993\""),
            ("bigint", "-9223372036854775808", "-9223372036854775808", "\"-9223372036854775808\""),
            ("bigint", "7", "7", "7"),
            ("decimal(20, 2)", "123456789012345678.1", "123456789012345678.10", "\"123456789012345678.10\""),
            ("decimal(5, 2)", "-0.05", "-0.05", "\"-0.05\""),
            ("double", "1.5", "1.5", "1.5"),
            ("double", "\"NaN\"", "\"NaN\"", "\"NaN\""),
            ("string", "\"a\\n\\\"é\"", "\"a\\n\\\"é\"", "\"a\\n\\\"é\""),
            ("boolean", "true", "true", "true"),
            ("bytes", "\"aGk=\"", "\"aGk=\"", "\"aGk=\""),
            ("date", "\"2026-02-28\"", "\"2026-02-28\"", "\"2026-02-28\""),
            ("time", "\"12:34:56.5\"", "\"12:34:56.500\"", "\"12:34:56.500\""),
            (
                "timestamp(3)",
                "\"2026-11-28T22:00:00+01:00\"",
                "\"2026-11-28T21:00:00.000Z\"",
                "\"2026-11-28T21:00:00.000Z\"",
            ),
            ("timestamp(0)", "0", "\"1970-01-01T00:00:00Z\"", "\"1970-01-01T00:00:00Z\""),
            ("array<decimal(5, 1)>", "[1, null]", "[1.0,null]", "[\"1.0\",null]"),
            ("map<string, bigint>", "{\"k\":1}", "{\"k\":1}", "{\"k\":1}"),
            (
                "row<a int, b row<c string>>",
                "{\"b\":{}}",
                "{\"a\":null,\"b\":{\"c\":null}}",
                "{\"a\":null,\"b\":{\"c\":null}}",
            ),
            ("int", "null", "null", "null"),
        ] {
            let (record, shown) = written(of, value);
            assert_eq!(record, format!("{{\"x\\\"y\":{plain}}}"), "{of}");
            assert_eq!(shown, serde_json::from_str::<Value>(safe).unwrap(), "{of}");
        }
    }
}
