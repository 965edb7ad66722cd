//! Columns by a sample of values, where nobody has declared any and no registry knows them. A guess, and shown as one: a sample
//! does not say what comes later. So the widest type is taken of what is alike, no digits are made up, and every column may be
//! missing.
//!
//! | in the sample | type |
//! |---|---|
//! | `true` | `boolean` |
//! | whole numbers | `bigint`; `decimal(38, 0)` if one needs more than 64 bits |
//! | numbers with a point or an exponent, or with more than 38 digits | `double` |
//! | text | `string`; a timestamp or a date if all of it is written so, as RFC 3339 has it |
//! | lists | `array<…>` |
//! | objects | `row<…>`; `map<string, …>` if their keys are hardly ever the same |
//! | nothing but `null`, empty lists or objects; values of several kinds | no column |

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::value::RawValue;

use super::{Column, DataType, unframed};

/// How deep types may nest.
const MAX_DEPTH: usize = 16;
/// Most columns, and most fields of an object within one.
const MAX_COLUMNS: usize = 1_000;
/// From so many keys on an object may be a map.
const MAP_KEYS: usize = 16;

/// What a topic's values have shown so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    object: Object,
    others: usize,
}

/// What values in one place have shown so far.
#[derive(Debug, Clone, Default, PartialEq)]
enum Shape {
    /// Nothing, or `null`.
    #[default]
    Nothing,
    Boolean,
    Whole {
        is_big: bool,
    },
    Double,
    Text(Text),
    List(Box<Shape>),
    Object(Object),
    /// Values of several kinds.
    Several,
}

/// What all texts are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Text {
    Any,
    Date,
    /// With so many digits of a second at most.
    Timestamp {
        digits: u8,
        /// Whether 64 bits hold it in nanoseconds, which reach from 1677 to 2262.
        fits_nanos: bool,
    },
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Object {
    /// Keys in the order in which they came, and in how many objects.
    keys: Vec<(String, Shape, usize)>,
    places: HashMap<String, usize>,
    /// How many objects.
    count: usize,
}

impl Sample {
    /// Looks at one value; `false` if it is no JSON object.
    pub fn add(&mut self, value: &[u8]) -> bool {
        let fields = serde_json::from_slice::<&RawValue>(unframed(value)).ok().and_then(|value| fields(value.get()));
        match fields {
            Some(fields) => self.object.add(fields, 0),
            None => self.others += 1,
        }
        self.others == 0
    }

    /// The columns, in the order in which they came; `None` if the values are no objects, or have no columns.
    pub fn columns(&self) -> Option<Vec<Column>> {
        let is_column = |name: &str| !name.is_empty() && !name.chars().any(char::is_control);
        let found = self.object.keys.iter().filter(|(name, ..)| is_column(name));
        let typed = found.filter_map(|(name, shape, _)| Some((name, shape.data_type(1)?)));
        let columns: Vec<Column> = typed
            .map(|(name, data_type)| Column { name: name.clone(), data_type, nullable: true })
            .take(MAX_COLUMNS)
            .collect();
        (self.others == 0 && !columns.is_empty()).then_some(columns)
    }
}

type Fields<'v> = Vec<(String, &'v RawValue)>;

fn fields(raw: &str) -> Option<Fields<'_>> {
    struct Reader;
    impl<'v> serde::de::Visitor<'v> for Reader {
        type Value = Fields<'v>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: serde::de::MapAccess<'v>>(self, mut map: M) -> Result<Fields<'v>, M::Error> {
            let mut fields = Vec::new();
            while let Some(field) = map.next_entry::<String, &'v RawValue>()? {
                fields.push(field);
            }
            Ok(fields)
        }
    }
    let mut json = serde_json::Deserializer::from_str(raw);
    serde::Deserializer::deserialize_map(&mut json, Reader).ok()
}

impl Object {
    fn add(&mut self, fields: Fields<'_>, depth: usize) {
        self.count += 1;
        for (name, value) in fields {
            let shape = Shape::of(value.get(), depth + 1);
            self.place(name, shape, 1);
        }
    }

    fn place(&mut self, name: String, shape: Shape, times: usize) {
        match self.places.get(&name) {
            Some(place) => {
                let (_, known, count) = &mut self.keys[*place];
                *known = std::mem::take(known).with(shape);
                *count += times;
            }
            None if self.keys.len() < MAX_COLUMNS => {
                self.places.insert(name.clone(), self.keys.len());
                self.keys.push((name, shape, times));
            }
            None => {}
        }
    }

    fn with(mut self, other: Object) -> Object {
        self.count += other.count;
        for (name, shape, times) in other.keys {
            self.place(name, shape, times);
        }
        self
    }

    /// Many keys, each in few of the objects, and all values alike: the keys are values themselves.
    fn as_map(&self) -> Option<Shape> {
        let seen: usize = self.keys.iter().map(|(_, _, count)| count).sum();
        let is_sparse = self.keys.len() >= MAP_KEYS && seen * 4 <= self.keys.len() * self.count;
        let value = self.keys.iter().fold(Shape::Nothing, |all, (_, shape, _)| all.with(shape.clone()));
        (is_sparse && value != Shape::Several).then_some(value)
    }

    fn data_type(&self, depth: usize) -> Option<DataType> {
        if let Some(value) = self.as_map() {
            return Some(DataType::Map(Box::new(value.data_type(depth + 1)?)));
        }
        let typed = self.keys.iter().filter(|(name, ..)| !name.is_empty() && !name.chars().any(char::is_control));
        let fields: Vec<(String, DataType)> =
            typed.filter_map(|(name, shape, _)| Some((name.clone(), shape.data_type(depth + 1)?))).collect();
        (!fields.is_empty()).then_some(DataType::Row(fields))
    }
}

impl Shape {
    fn of(raw: &str, depth: usize) -> Shape {
        match raw.as_bytes().first() {
            Some(b't' | b'f') => Shape::Boolean,
            Some(b'"') => {
                serde_json::from_str::<String>(raw).map_or(Shape::Several, |text| Shape::Text(Text::of(&text)))
            }
            Some(b'{' | b'[') if depth > MAX_DEPTH => Shape::Several,
            Some(b'{') => fields(raw).map_or(Shape::Several, |fields| {
                let mut object = Object::default();
                object.add(fields, depth);
                Shape::Object(object)
            }),
            Some(b'[') => match serde_json::from_str::<Vec<&RawValue>>(raw) {
                Ok(values) => {
                    let one = |all: Shape, value: &&RawValue| all.with(Shape::of(value.get(), depth + 1));
                    Shape::List(Box::new(values.iter().fold(Shape::Nothing, one)))
                }
                Err(_) => Shape::Several,
            },
            Some(b'-' | b'0'..=b'9') => number(raw),
            _ => Shape::Nothing,
        }
    }

    fn with(self, other: Shape) -> Shape {
        match (self, other) {
            (Shape::Nothing, shape) | (shape, Shape::Nothing) => shape,
            (Shape::Boolean, Shape::Boolean) => Shape::Boolean,
            (Shape::Whole { is_big: one }, Shape::Whole { is_big: other }) => Shape::Whole { is_big: one || other },
            (Shape::Double | Shape::Whole { .. }, Shape::Double) | (Shape::Double, Shape::Whole { .. }) => {
                Shape::Double
            }
            (Shape::Text(one), Shape::Text(other)) => Shape::Text(one.with(other)),
            (Shape::List(one), Shape::List(other)) => Shape::List(Box::new(one.with(*other))),
            (Shape::Object(one), Shape::Object(other)) => Shape::Object(one.with(other)),
            _ => Shape::Several,
        }
    }

    fn data_type(&self, depth: usize) -> Option<DataType> {
        if depth > MAX_DEPTH {
            return None;
        }
        Some(match self {
            Shape::Nothing | Shape::Several => return None,
            Shape::Boolean => DataType::Boolean,
            Shape::Whole { is_big: false } => DataType::BigInt,
            Shape::Whole { is_big: true } => DataType::Decimal { precision: 38, scale: 0 },
            Shape::Double => DataType::Double,
            Shape::Text(Text::Any) => DataType::String,
            Shape::Text(Text::Date) => DataType::Date,
            Shape::Text(Text::Timestamp { digits, fits_nanos }) => DataType::Timestamp(match digits {
                0..=3 => 3,
                7.. if *fits_nanos => 9,
                _ => 6,
            }),
            Shape::List(of) => DataType::Array(Box::new(of.data_type(depth + 1)?)),
            Shape::Object(object) => return object.data_type(depth),
        })
    }
}

fn number(raw: &str) -> Shape {
    let digits = raw.trim_start_matches('-');
    let is_whole = digits.bytes().all(|digit| digit.is_ascii_digit());
    match (is_whole, raw.parse::<i64>()) {
        (true, Ok(_)) => Shape::Whole { is_big: false },
        (true, Err(_)) if digits.len() <= 38 => Shape::Whole { is_big: true },
        _ => Shape::Double,
    }
}

impl Text {
    fn of(text: &str) -> Text {
        let bytes = text.as_bytes();
        let is_dated = bytes.len() >= 10 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[0].is_ascii_digit();
        match is_dated {
            true if bytes.len() == 10 && text.parse::<Date>().is_ok() => Text::Date,
            // With its time and its zone: else nobody knows when it was.
            true if is_moment(bytes) => match text.parse::<Timestamp>() {
                Ok(moment) => {
                    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
                    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count() as u8;
                    Text::Timestamp { digits, fits_nanos: i64::try_from(moment.as_nanosecond()).is_ok() }
                }
                Err(_) => Text::Any,
            },
            _ => Text::Any,
        }
    }

    fn with(self, other: Text) -> Text {
        match (self, other) {
            (Text::Date, Text::Date) => Text::Date,
            (
                Text::Timestamp { digits: one, fits_nanos: fits },
                Text::Timestamp { digits: other, fits_nanos: fits_too },
            ) => Text::Timestamp { digits: one.max(other), fits_nanos: fits && fits_too },
            _ => Text::Any,
        }
    }
}

/// Whether it is spelled as those read it who read the column: `2026-11-30T12:34:56[.fraction]` with `Z` or `±hh:mm` behind it. The
/// parser takes more, such as times without seconds, with a comma, or with the name of a zone.
fn is_moment(text: &[u8]) -> bool {
    let [.., b'T', _, _, b':', _, _, b':', b'0'..=b'5', b'0'..=b'9'] = text.get(..19).unwrap_or_default() else {
        return false;
    };
    let digits = match &text[19..] {
        [b'.', fraction @ ..] => 1 + fraction.iter().take_while(|digit| digit.is_ascii_digit()).count(),
        _ => 0,
    };
    digits != 1 && digits <= 10 && matches!(&text[19 + digits..], [b'Z'] | [b'+' | b'-', b'0' | b'1', _, b':', _, _])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn sample(values: &[&str]) -> Sample {
        let mut sample = Sample::default();
        for value in values {
            sample.add(value.as_bytes());
        }
        sample
    }

    fn type_of(values: &[&str]) -> Option<String> {
        let values: Vec<String> = values.iter().map(|value| format!("{{\"a\": {value}}}")).collect();
        let columns = sample(&values.iter().map(String::as_str).collect::<Vec<_>>()).columns()?;
        Some(columns[0].data_type.to_string())
    }

    #[test]
    fn a_type_is_as_wide_as_what_was_seen() {
        for (values, expected) in [
            (&["1", "null", "2"][..], "bigint"),
            (&["1", "9223372036854775808"], "decimal(38, 0)"),
            (&["-9223372036854775808"], "bigint"),
            (&["1", "1.5"], "double"),
            (&["1.50"], "double"),
            (&["9223372036854775808", "1e3"], "double"),
            (&["1000000000000000000000000000000000000000"], "double"),
            (&["true", "false"], "boolean"),
            (&["\"a\"", "\"2026-01-01\""], "string"),
            (&["\"12.50\""], "string"),
            (&["\"2026-01-01\"", "\"2026-02-28\""], "date"),
            (&["\"2026-02-30\""], "string"),
            (&["\"2026-01-01T00:00:00Z\""], "timestamp(3)"),
            (&["\"2026-01-01T00:00:00.123456+01:00\"", "\"2026-01-01T00:00:00Z\""], "timestamp(6)"),
            (&["\"2026-01-01T00:00:00\""], "string"),
            (&["\"2026-01-01T00:00:00Z\"", "\"2026-01-01\""], "string"),
            (&["[]", "[1, null]", "[2.5]"], "array<double>"),
            (&["[[1]]"], "array<array<bigint>>"),
            (&["{\"b\": 1}", "{\"c\": [\"x\"]}"], "row<`b` bigint, `c` array<string>>"),
            (&["[{\"b\": 1}, {\"b\": 2.5}]"], "array<row<`b` double>>"),
        ] {
            assert_eq!(type_of(values).as_deref(), Some(expected), "{values:?}");
        }
        for nothing in
            [&["null"][..], &["[]"], &["{}"], &["1", "\"a\""], &["[1, \"a\"]"], &["{\"b\": null}"], &["true", "0"]]
        {
            assert_eq!(type_of(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn keys_that_are_hardly_ever_the_same_are_those_of_a_map() {
        let object = |of: &dyn Fn(usize) -> Value| {
            let values: Vec<String> = (0..40).map(|number| of(number).to_string()).collect();
            sample(&values.iter().map(String::as_str).collect::<Vec<_>>()).columns().unwrap().pop().unwrap()
        };
        let map = object(&|number| json!({ "tags": { format!("k{number}"): number, format!("l{number}"): 1.5 } }));
        assert_eq!(map.data_type.to_string(), "map<string, double>");
        let row = object(&|number| json!({ "tags": { "a": number, "b": "x", format!("c{}", number % 3): 1 } }));
        assert_eq!(row.data_type.to_string(), "row<`a` bigint, `b` string, `c0` bigint, `c1` bigint, `c2` bigint>");
        // A value is never a map as a whole: its keys are the columns.
        let values: Vec<String> = (0..40).map(|number| json!({ format!("k{number}"): 1 }).to_string()).collect();
        assert_eq!(sample(&values.iter().map(String::as_str).collect::<Vec<_>>()).columns().unwrap().len(), 40);
    }

    #[test]
    fn what_is_no_object_has_no_columns() {
        for value in ["1", "[]", "null", "", "{\"a\": 1", "{\"a\": 1} {}", "\u{0}\u{0}\u{0}\u{0}\u{1}x"] {
            assert_eq!(sample(&["{\"a\": 1}", value]).columns(), None, "{value:?}");
        }
        assert_eq!(sample(&[]).columns(), None);
        assert!(
            sample(&["\u{0}\u{0}\u{0}\u{0}\u{1}{\"a\": 1}"]).columns().is_some(),
            "the frame of a registry is no part of it"
        );
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(100), "]".repeat(100));
        assert_eq!(sample(&[&deep]).columns(), None);
        assert_eq!(sample(&["{\"\": 1, \"a\\u0000\": 1, \"b\": 1}"]).columns().unwrap().len(), 1);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e6..1e6).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
            Just(json!("2026-01-01")),
            Just(json!("2026-01-01T00:00:00.5Z")),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-d]", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// Whether a value is one of that type, by itself.
    fn fits(value: &Value, of: &DataType) -> bool {
        match (value, of) {
            (Value::Null, _) | (Value::Bool(_), DataType::Boolean) => true,
            (Value::Number(number), DataType::BigInt) => number.as_i64().is_some(),
            (Value::Number(number), DataType::Decimal { scale: 0, .. }) => number.is_i64() || number.is_u64(),
            (Value::Number(_), DataType::Double) | (Value::String(_), DataType::String) => true,
            (Value::String(text), DataType::Date) => text.parse::<Date>().is_ok(),
            (Value::String(text), DataType::Timestamp(_)) => text.parse::<Timestamp>().is_ok(),
            (Value::Array(values), DataType::Array(of)) => values.iter().all(|value| fits(value, of)),
            (Value::Object(fields), DataType::Map(of)) => fields.values().all(|value| fits(value, of)),
            (Value::Object(object), DataType::Row(fields)) => {
                fields.iter().all(|(name, of)| object.get(name).is_none_or(|value| fits(value, of)))
            }
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_value_of_a_sample_fits_its_columns_whatever_their_order(
            rows in prop::collection::vec(prop::collection::hash_map("[a-d]", value(), 0..4), 1..8),
            turn in any::<prop::sample::Index>(),
        ) {
            let rows: Vec<Value> = rows.into_iter().map(|fields| Value::Object(fields.into_iter().collect())).collect();
            let texts: Vec<String> = rows.iter().map(Value::to_string).collect();
            let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let columns = sample(&texts).columns().unwrap_or_default();
            for row in &rows {
                for column in &columns {
                    let found = row.get(&column.name).unwrap_or(&Value::Null);
                    prop_assert!(fits(found, &column.data_type), "{found} is no {}", column.data_type);
                }
            }
            let by_name = |mut columns: Vec<Column>| {
                columns.sort_by(|one, other| one.name.cmp(&other.name));
                columns.into_iter().map(|column| column.name).collect::<Vec<_>>()
            };
            let middle = turn.index(texts.len());
            texts.rotate_left(middle);
            prop_assert_eq!(by_name(sample(&texts).columns().unwrap_or_default()), by_name(columns));
        }

        #[test]
        fn nothing_makes_it_panic(values in prop::collection::vec(any::<Vec<u8>>(), 0..4), text in ".{0,40}") {
            let mut sample = Sample::default();
            for value in values.iter().map(Vec::as_slice).chain([text.as_bytes()]) {
                sample.add(value);
            }
            sample.columns();
        }
    }
}
