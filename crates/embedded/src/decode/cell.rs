//! One value of a record, by the type of its column.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use datafusion::arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use datafusion::arrow::datatypes::{Date32Type, Time64MicrosecondType};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use streamview_manager::catalog::DataType;

use super::text::decimal;

/// Most characters of a value that are told.
const TOLD: usize = 40;

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell<'j> {
    Null,
    Bool(bool),
    /// Whole numbers, and what is counted: days, microseconds, units of a time.
    Whole(i64),
    Double(f64),
    Decimal(i128),
    Text(Cow<'j, str>),
    Bytes(Vec<u8>),
    List(Vec<Cell<'j>>),
    Map(Vec<(String, Cell<'j>)>),
    Row(Vec<Cell<'j>>),
}

/// Reads a JSON value. Large numbers and decimals may be text, too.
pub(super) fn cell<'j>(raw: &'j str, of: &DataType) -> Result<Cell<'j>, String> {
    if raw == "null" {
        return Ok(Cell::Null);
    }
    let is_number = raw.starts_with(|letter: char| letter == '-' || letter.is_ascii_digit());
    let text = || text(raw);
    let read = match of {
        DataType::Boolean => match raw {
            "true" => Some(Cell::Bool(true)),
            "false" => Some(Cell::Bool(false)),
            _ => None,
        },
        DataType::Int if is_number => whole(raw).filter(|number| i32::try_from(*number).is_ok()).map(Cell::Whole),
        DataType::BigInt if is_number => whole(raw).map(Cell::Whole),
        DataType::BigInt => text().and_then(|text| whole(&text)).map(Cell::Whole),
        DataType::Double if is_number => raw.parse().ok().filter(|number: &f64| number.is_finite()).map(Cell::Double),
        DataType::Double => text().and_then(|text| special(&text)).map(Cell::Double),
        DataType::Decimal { precision, scale } if is_number => decimal(raw, *precision, *scale).map(Cell::Decimal),
        DataType::Decimal { precision, scale } => {
            text().and_then(|text| decimal(&text, *precision, *scale)).map(Cell::Decimal)
        }
        DataType::String => text().map(Cell::Text),
        DataType::Bytes => text().and_then(|text| STANDARD.decode(text.as_bytes()).ok()).map(Cell::Bytes),
        DataType::Date => text().and_then(|text| day(&text)).map(|days| Cell::Whole(days.into())),
        DataType::Time => text().and_then(|text| time_of_day(&text)).map(Cell::Whole),
        DataType::Timestamp(digits) if is_number => {
            whole(raw).and_then(|ms| units(i128::from(ms) * 1_000_000, *digits)).map(Cell::Whole)
        }
        DataType::Timestamp(digits) => text().and_then(|text| moment(&text, *digits)).map(Cell::Whole),
        DataType::Array(of) => return list(raw, of),
        DataType::Map(of) => return map(raw, of),
        DataType::Row(fields) => return row(raw, fields),
        DataType::Int => None,
    };
    read.ok_or_else(|| unfit(raw, of))
}

fn unfit(raw: &str, of: &DataType) -> String {
    let told: String = raw.chars().take(TOLD).collect();
    let more = if told.len() < raw.len() { "…" } else { "" };
    format!("{told}{more} is no {of}")
}

/// A JSON text, if it is one.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inside))
}

/// A whole number, in whatever way it is written: `1e3` is one, `1.5` is none.
fn whole(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| decimal(text, 19, 0).and_then(|number| i64::try_from(number).ok()))
}

/// Doubles for which JSON has no number.
fn special(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        // As we write it, and as it comes out of Avro.
        "Infinity" | "inf" => Some(f64::INFINITY),
        "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// `2026-11-30`. The parser takes moments as well, whose day depends on the zone, and dates without their zeros.
fn day(text: &str) -> Option<i32> {
    let is_day = matches!(text.as_bytes(), [_, _, _, _, b'-', _, _, b'-', _, _]);
    is_day.then(|| Date32Type::parse(text)).flatten()
}

/// `12:34`, `12:34:56` or with a fraction. The parser takes bare numbers as well, and `1:02 PM`.
fn time_of_day(text: &str) -> Option<i64> {
    let is_plain = text.bytes().all(|letter| matches!(letter, b'0'..=b'9' | b':' | b'.'));
    (is_plain && text.as_bytes().get(2) == Some(&b':')).then(|| Time64MicrosecondType::parse(text)).flatten()
}

/// A moment by ISO 8601; UTC where it names no zone.
fn moment(text: &str, digits: u8) -> Option<i64> {
    let at = string_to_datetime(&Utc, text).ok()?;
    units(i128::from(at.timestamp()) * 1_000_000_000 + i128::from(at.timestamp_subsec_nanos()), digits)
}

/// Nanoseconds in the units of a column with so many digits of a second. What is finer than these is cut off, as clocks do.
fn units(nanos: i128, digits: u8) -> Option<i64> {
    let of_a_unit = match digits {
        0 => 1_000_000_000,
        1..=3 => 1_000_000,
        4..=6 => 1_000,
        _ => 1,
    };
    i64::try_from(nanos.div_euclid(of_a_unit)).ok()
}

fn list<'j>(raw: &'j str, of: &DataType) -> Result<Cell<'j>, String> {
    let entries: Vec<&'j RawValue> =
        serde_json::from_str(raw).map_err(|_| unfit(raw, &DataType::Array(Box::new(of.clone()))))?;
    entries.into_iter().map(|entry| cell(entry.get(), of)).collect::<Result<_, _>>().map(Cell::List)
}

/// The entries of an object in their order; of a name that stands there twice, the last one.
pub(super) fn entries(raw: &str) -> Option<Pairs<'_>> {
    serde_json::Deserializer::from_str(raw).deserialize_map(Entries).ok()
}

pub(super) type Pairs<'j> = Vec<(String, &'j RawValue)>;

struct Entries;

impl<'j> Visitor<'j> for Entries {
    type Value = Pairs<'j>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'j>>(self, mut map: M) -> Result<Pairs<'j>, M::Error> {
        let mut pairs: Pairs<'j> = Vec::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        while let Some((name, value)) = map.next_entry::<String, &'j RawValue>()? {
            match numbers.entry(name.clone()) {
                Entry::Occupied(known) => pairs[*known.get()].1 = value,
                Entry::Vacant(new) => {
                    new.insert(pairs.len());
                    pairs.push((name, value));
                }
            }
        }
        Ok(pairs)
    }
}

fn map<'j>(raw: &'j str, of: &DataType) -> Result<Cell<'j>, String> {
    let entries = entries(raw).ok_or_else(|| unfit(raw, &DataType::Map(Box::new(of.clone()))))?;
    let cells = entries.into_iter().map(|(name, entry)| Ok((name, cell(entry.get(), of)?)));
    cells.collect::<Result<_, String>>().map(Cell::Map)
}

fn row<'j>(raw: &'j str, fields: &[(String, DataType)]) -> Result<Cell<'j>, String> {
    let mut found: Vec<Option<&'j RawValue>> = vec![None; fields.len()];
    let read = serde_json::Deserializer::from_str(raw).deserialize_map(Fields { fields, found: &mut found });
    read.map_err(|_| unfit(raw, &DataType::Row(fields.to_vec())))?;
    let cells = fields.iter().zip(found).map(|((name, of), found)| {
        let read = found.map_or(Ok(Cell::Null), |entry| cell(entry.get(), of));
        read.map_err(|why| format!("{name}: {why}"))
    });
    cells.collect::<Result<_, _>>().map(Cell::Row)
}

/// The entries of an object that a row has fields for, as they stand there; of a name that stands there twice, the last one.
struct Fields<'t, 'f, 'j> {
    fields: &'t [(String, DataType)],
    found: &'f mut [Option<&'j RawValue>],
}

impl<'j> Visitor<'j> for Fields<'_, '_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'j>>(self, mut map: M) -> Result<(), M::Error> {
        // Mostly they stand there in the order of the fields.
        let mut next = 0;
        while let Some(number) = map.next_key_seed(FieldName { fields: self.fields, next })? {
            match number {
                Some(number) => {
                    self.found[number] = Some(map.next_value()?);
                    next = number + 1;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The name of an entry: the number of its field.
struct FieldName<'t> {
    fields: &'t [(String, DataType)],
    next: usize,
}

impl<'j> DeserializeSeed<'j> for FieldName<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(match self.fields.get(self.next) {
            Some((expected, _)) if expected == name => Some(self.next),
            _ => self.fields.iter().position(|(known, _)| known == name),
        })
    }
}
