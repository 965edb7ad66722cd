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
    /// The entries of a list.
    fn entries(self) -> Option<Vec<Self::Entry>>;

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

    fn entries(self) -> Option<Vec<&'a RawValue>> {
        serde_json::from_str(self.get()).ok()
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

    fn entries(self) -> Option<Vec<FieldSet<'a>>> {
        if let Typed::Rows(rows) = self { Some(rows) } else { None }
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
