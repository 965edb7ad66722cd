//! Values of results as they are handed on: nothing is rounded on the way.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::catalog::DataType;

/// The largest whole number up to which a double holds every one.
const EXACT: u64 = 1 << 53;

/// A field of a row. What is not what its type says is handed on as it stands.
pub(super) fn value(raw: &RawValue, data_type: &DataType) -> Value {
    let text = raw.get().trim();
    if text == "null" {
        return Value::Null;
    }
    match data_type {
        DataType::Decimal { scale, .. } => {
            plain_decimal(text, usize::from(*scale)).map_or_else(|| as_it_is(text), Value::from)
        }
        DataType::BigInt => match text.parse::<i64>() {
            Ok(number) if number.unsigned_abs() <= EXACT => Value::from(number),
            Ok(_) => Value::from(text),
            Err(_) => as_it_is(text),
        },
        DataType::Array(of) => match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(entries) => entries.into_iter().map(|entry| value(entry, of)).collect(),
            Err(_) => as_it_is(text),
        },
        DataType::Map(of) => object(text, |_| Some(of)),
        DataType::Row(fields) => {
            object(text, |name| fields.iter().find(|(field, _)| field == name).map(|(_, data_type)| data_type))
        }
        _ => as_it_is(text),
    }
}

fn object<'t>(text: &str, type_of: impl Fn(&str) -> Option<&'t DataType>) -> Value {
    let Ok(entries) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else { return as_it_is(text) };
    let read = entries.into_iter().map(|(name, raw)| {
        let read = type_of(&name).map_or_else(|| as_it_is(raw.get()), |data_type| value(raw, data_type));
        (name, read)
    });
    Value::Object(read.collect())
}

fn as_it_is(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// `1E+2` with a scale of 2 is `100.00`: Flink writes decimals as JSON numbers, without zeros at the end and with exponents.
fn plain_decimal(text: &str, scale: usize) -> Option<String> {
    let (mantissa, exponent) = text.split_once(['E', 'e']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) || exponent.unsigned_abs() > 100 {
        return None;
    }
    // Where the point stands among the digits.
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let zeros_before = usize::try_from(1 - point.min(1)).ok()?;
    let digits = format!("{}{digits}", "0".repeat(zeros_before));
    let point = usize::try_from(point.max(1)).ok()?;
    let digits = if digits.len() < point { format!("{digits:0<point$}") } else { digits };
    let (whole, fraction) = digits.split_at(point);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    // Never more digits than there are places, or the type would have been another.
    let fraction = if fraction.len() > scale { fraction.trim_end_matches('0') } else { fraction };
    Some(if scale == 0 && fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction:0<scale$}")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(raw: &str, data_type: &str) -> Value {
        value(&RawValue::from_string(raw.to_owned()).unwrap(), &data_type.parse().unwrap())
    }

    #[test]
    fn decimals_keep_every_digit_and_their_places() {
        for (raw, scale, expected) in [
            ("1.1", 2, "1.10"),
            ("1E+2", 2, "100.00"),
            ("1E+6", 0, "1000000"),
            ("1.2E-7", 8, "0.00000012"),
            ("-0.5", 2, "-0.50"),
            ("0", 2, "0.00"),
            ("-12.345E1", 2, "-123.45"),
            ("123456789012345678901234567890.12345678", 8, "123456789012345678901234567890.12345678"),
        ] {
            assert_eq!(plain_decimal(raw, scale).as_deref(), Some(expected), "{raw}");
        }
        assert_eq!(read("\"odd\"", "decimal(10, 2)"), Value::from("odd"));
    }

    #[test]
    fn whole_numbers_are_text_where_a_double_would_round_them() {
        assert_eq!(read("9007199254740992", "bigint"), Value::from(9_007_199_254_740_992_i64));
        assert_eq!(read("9007199254740993", "bigint"), Value::from("9007199254740993"));
        assert_eq!(read("-9223372036854775808", "bigint"), Value::from("-9223372036854775808"));
        assert_eq!(read("null", "bigint"), Value::Null);
    }

    #[test]
    fn what_nests_is_read_by_its_types() {
        let nested = read(
            r#"{"a": [9223372036854775807, null], "b": {"k": 2E+1}}"#,
            "row<a array<bigint>, b map<string, decimal(5, 1)>>",
        );
        assert_eq!(nested, serde_json::json!({"a": ["9223372036854775807", null], "b": {"k": "20.0"}}));
    }
}
