//! Fields of a payload, whatever its format: raw JSON that is read when asked for, or values that a binary format has
//! typed already. The rules of each kind of field stand here once.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::codec::frame::uuid_text;
use crate::codec::json;
use crate::domain::decimal::Decimal;
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::Micros;

/// Longest text field, in characters.
pub const MAX_TEXT_CHARS: usize = 256;

/// One field of an event. Each method gives `None` where the field is not of that kind.
pub trait Field<'a>: Sized {
    /// An entry of a list, not looked into yet.
    type Entry;

    /// Whether it is there and says nothing.
    fn is_null(&self) -> bool;
    /// The beginning of the value, for the sentence of a refusal.
    fn shown(&self) -> String;
    /// A text.
    fn text(&self) -> Option<Cow<'a, str>>;
    /// An exact decimal.
    fn decimal(&self) -> Option<Decimal>;
    /// A moment (finer digits are cut).
    fn micros(&self) -> Option<Micros>;
    /// The entries of a list of `most` or fewer; anything else comes back as it is.
    fn entries(self, most: usize) -> Result<Vec<Self::Entry>, Self>;

    /// What a producer of this format writes for a decimal, in words.
    const A_DECIMAL: &'static str;
    /// Likewise for a moment.
    const A_MOMENT: &'static str;
}

impl<'a> Field<'a> for &'a RawValue {
    type Entry = &'a RawValue;

    fn is_null(&self) -> bool {
        self.get() == "null"
    }

    fn shown(&self) -> String {
        self.get().chars().take(80).collect()
    }

    fn text(&self) -> Option<Cow<'a, str>> {
        json::unquote(self.get())
    }

    fn decimal(&self) -> Option<Decimal> {
        let digits = if self.get().starts_with('"') { self.text()? } else { Cow::Borrowed(self.get()) };
        Decimal::parse(&digits).ok()
    }

    fn micros(&self) -> Option<Micros> {
        json::micros(&self.text()?)
    }

    fn entries(self, most: usize) -> Result<Vec<&'a RawValue>, Self> {
        match serde_json::from_str::<Vec<_>>(self.get()) {
            Ok(list) if list.len() <= most => Ok(list),
            _ => Err(self),
        }
    }

    const A_DECIMAL: &'static str =
        "a decimal number with at most 18 digits before and 12 after the point, no exponent";
    const A_MOMENT: &'static str = "an RFC 3339 time with offset, such as 2026-01-31T12:00:00Z";
}

/// The wanted fields of one object: position in the view's list of names, value.
pub type FieldSet<'a> = Vec<(u8, Typed<'a>)>;

/// A value whose type its schema has told.
#[derive(Debug, Clone, PartialEq)]
pub enum Typed<'a> {
    /// Nothing.
    Null,
    /// Text of the record.
    Text(&'a str),
    /// A whole number.
    Integer(i64),
    /// An exact decimal within our bounds.
    Decimal(Decimal),
    /// A moment.
    Micros(Micros),
    /// A UUID that is not written as text.
    Uuid(u128),
    /// A list of objects.
    Rows(Vec<FieldSet<'a>>),
    /// Something that no field of ours can be, in words.
    Other(&'static str),
}

impl<'a> Field<'a> for Typed<'a> {
    type Entry = FieldSet<'a>;

    fn is_null(&self) -> bool {
        matches!(self, Typed::Null)
    }

    fn shown(&self) -> String {
        match self {
            Typed::Null => "null".to_owned(),
            Typed::Text(text) => format!("\"{}\"", text.chars().take(78).collect::<String>()),
            Typed::Integer(number) => number.to_string(),
            Typed::Decimal(decimal) => decimal.to_string(),
            Typed::Micros(micros) => format!("the time {micros} (microseconds since the epoch)"),
            Typed::Uuid(uuid) => uuid_text(*uuid),
            Typed::Rows(rows) => format!("a list of {}", rows.len()),
            Typed::Other(what) => (*what).to_owned(),
        }
    }

    fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Typed::Text(text) => Some(Cow::Borrowed(text)),
            Typed::Uuid(uuid) => Some(Cow::Owned(uuid_text(*uuid))),
            _ => None,
        }
    }

    fn decimal(&self) -> Option<Decimal> {
        match self {
            Typed::Decimal(decimal) => Some(*decimal),
            Typed::Text(text) => Decimal::parse(text).ok(),
            // 18 digits at most, as everywhere.
            Typed::Integer(number) => Decimal::parse(&number.to_string()).ok(),
            _ => None,
        }
    }

    fn micros(&self) -> Option<Micros> {
        match self {
            Typed::Micros(micros) => Some(*micros),
            Typed::Text(text) => json::micros(text),
            _ => None,
        }
    }

    fn entries(self, most: usize) -> Result<Vec<FieldSet<'a>>, Self> {
        match self {
            Typed::Rows(rows) if rows.len() <= most => Ok(rows),
            other => Err(other),
        }
    }

    const A_DECIMAL: &'static str = "the logical type decimal or big-decimal, a whole number, or a text; at most 18 digits before and 12 after the point";
    const A_MOMENT: &'static str =
        "the logical type timestamp-millis, timestamp-micros or timestamp-nanos, or a text with an RFC 3339 time";
}

/// The refusal of field `name`.
pub fn violation<'a, F: Field<'a>>(name: &str, field: Option<&F>, expected: &str) -> Poison {
    let shown = field.map_or_else(|| "missing".to_owned(), F::shown);
    Poison::new(Reason::SchemaViolation, format!("field {name} is {shown}; expected {expected}"))
}

/// A text; borrowed from the record where it stands there as it is.
pub fn text<'a, F: Field<'a>>(name: &str, field: Option<&F>) -> Result<Cow<'a, str>, Poison> {
    field.and_then(F::text).ok_or_else(|| violation(name, field, "a string"))
}

/// A text of 1 to [`MAX_TEXT_CHARS`] characters.
pub fn name<'a, F: Field<'a>>(field: &str, value: Option<&F>) -> Result<Cow<'a, str>, Poison> {
    let text = text(field, value)?;
    // Bytes bound characters from above, so the count is rarely needed.
    if text.is_empty() || (text.len() > MAX_TEXT_CHARS && text.chars().count() > MAX_TEXT_CHARS) {
        return Err(violation(field, value, "a string of 1 to 256 characters"));
    }
    Ok(text)
}

/// An exact decimal.
pub fn decimal<'a, F: Field<'a>>(name: &str, field: Option<&F>) -> Result<Decimal, Poison> {
    field.and_then(F::decimal).ok_or_else(|| violation(name, field, F::A_DECIMAL))
}

/// A moment, in microseconds since the epoch.
pub fn timestamp<'a, F: Field<'a>>(name: &str, field: Option<&F>) -> Result<Micros, Poison> {
    field.and_then(F::micros).ok_or_else(|| violation(name, field, F::A_MOMENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    fn number(text: &str) -> Option<Decimal> {
        Some(Decimal::parse(text).unwrap())
    }

    #[test]
    fn a_json_field_is_what_it_is_and_nothing_else() {
        let (null, text, digits, list) = (raw("null"), raw(r#""a\u00fc""#), raw("1.50"), raw("[1,{}]"));
        assert_eq!([null, text, digits, list].map(|field| Field::is_null(&field)), [true, false, false, false]);
        assert_eq!(
            [null, text, digits, list].map(|field| Field::shown(&field)),
            ["null", r#""a\u00fc""#, "1.50", "[1,{}]"]
        );
        assert_eq!(Field::shown(&raw(&format!("\"{}\"", "x".repeat(100)))).len(), 80, "a beginning");
        assert_eq!([null, text, digits, list].map(|field| Field::text(&field)), [None, Some("aü".into()), None, None]);
        assert_eq!([null, text, digits, list].map(|field| Field::decimal(&field)), [None, None, number("1.50"), None]);
        assert_eq!(Field::decimal(&raw("\"2.5\"")), number("2.5"));
        let moment = raw("\"1970-01-01T00:00:01Z\"");
        assert_eq!([moment, digits].map(|field| Field::micros(&field)), [Some(Micros(1_000_000)), None]);
        fn entries(field: &RawValue, most: usize) -> Result<Vec<&str>, &str> {
            let entries = Field::entries(field, most).map_err(RawValue::get)?;
            Ok(entries.into_iter().map(RawValue::get).collect())
        }
        assert_eq!(entries(list, 2), Ok(vec!["1", "{}"]));
        assert_eq!([entries(list, 1), entries(text, 2)], [Err(list.get()), Err(text.get())]);
    }

    #[test]
    fn a_typed_field_is_what_its_schema_says() {
        let rows = Typed::Rows(vec![vec![(3, Typed::Null)]]);
        assert!(Typed::Null.is_null() && !Typed::Text("").is_null());
        assert_eq!(Typed::Text("a").text(), Some("a".into()));
        assert_eq!(Typed::Uuid(1).text(), Some("00000000-0000-0000-0000-000000000001".into()));
        assert_eq!(Typed::Integer(1).text(), None);
        assert_eq!(Typed::Text("1.50").decimal(), number("1.50"));
        assert_eq!(Typed::Integer(-7).decimal(), number("-7"));
        assert_eq!(Typed::Integer(i64::MAX).decimal(), None, "19 digits");
        assert_eq!(Typed::Decimal(Decimal::parse("2.5").unwrap()).decimal(), number("2.5"));
        assert_eq!(Typed::Null.decimal(), None);
        assert_eq!(Typed::Micros(Micros(5)).micros(), Some(Micros(5)));
        assert_eq!(Typed::Text("1970-01-01T00:00:01Z").micros(), Some(Micros(1_000_000)));
        assert_eq!(Typed::Integer(5).micros(), None);
        assert_eq!(rows.clone().entries(1), Ok(vec![vec![(3, Typed::Null)]]));
        assert_eq!([rows.clone(), Typed::Null].map(|field| field.entries(0)), [Err(rows.clone()), Err(Typed::Null)]);
        let shown =
            [Typed::Null, Typed::Text("a"), Typed::Integer(1), rows, Typed::Other("a map")].map(|field| field.shown());
        assert_eq!(shown, ["null", "\"a\"", "1", "a list of 1", "a map"]);
        assert_eq!(Typed::Text(&"x".repeat(100)).shown().len(), 80, "a beginning");
    }

    #[test]
    fn a_name_has_1_to_256_characters_whatever_their_bytes() {
        for (unit, characters) in [("a", 1), ("a", MAX_TEXT_CHARS), ("ü", MAX_TEXT_CHARS), ("😀", MAX_TEXT_CHARS)] {
            let value = unit.repeat(characters);
            assert_eq!(name("id", Some(&Typed::Text(&value))), Ok(Cow::Borrowed(&*value)), "{characters} × {unit}");
            assert_eq!(text("id", Some(&Typed::Text(&value))), Ok(Cow::Borrowed(&*value)));
        }
        for (unit, characters) in [("a", 0), ("a", MAX_TEXT_CHARS + 1), ("ü", MAX_TEXT_CHARS + 1)] {
            let value = unit.repeat(characters);
            let poison = name("id", Some(&Typed::Text(&value))).unwrap_err();
            assert!(poison.detail.ends_with("expected a string of 1 to 256 characters"), "{poison}");
            assert!(text("id", Some(&Typed::Text(&value))).is_ok(), "a text has no such bounds");
        }
        assert_eq!(name::<Typed<'_>>("id", None).unwrap_err().detail, "field id is missing; expected a string");
    }
}
