//! Values of engines' rows as they are handed on: nothing is rounded on the way. Decimals are text, other numbers where a
//! double would round them.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::DataType;
use super::numbers::survives;

/// How deep lists and objects are read. What nests deeper is handed on as text: each level takes of the stack, and whoever writes
/// a topic would end the process with one record.
pub(crate) const MAX_DEPTH: usize = 64;

/// A field of a row, of this type if that is known. What is not what its type says is handed on as it stands.
pub fn value(raw: &str, of: Option<&DataType>) -> Value {
    within(raw, of, 0)
}

fn within(raw: &str, of: Option<&DataType>, depth: usize) -> Value {
    let raw = raw.trim();
    match (raw.as_bytes().first(), of) {
        (Some(b'[' | b'{'), _) if depth >= MAX_DEPTH => Value::from(raw),
        (Some(b'['), of) => {
            let of = match of {
                Some(DataType::Array(of)) => Some(&**of),
                _ => None,
            };
            match serde_json::from_str::<Vec<&RawValue>>(raw) {
                Ok(entries) => entries.into_iter().map(|entry| within(entry.get(), of, depth + 1)).collect(),
                Err(_) => Value::from(raw),
            }
        }
        (Some(b'{'), of) => object(raw, of, depth),
        (Some(b'-' | b'0'..=b'9'), Some(DataType::Decimal { scale, .. })) => {
            Value::from(plain_decimal(raw, usize::from(*scale)).unwrap_or_else(|| raw.to_owned()))
        }
        (Some(b'-' | b'0'..=b'9'), _) if !survives(raw) => Value::from(raw),
        _ => serde_json::from_str(raw).unwrap_or_else(|_| Value::from(raw)),
    }
}

fn object(raw: &str, of: Option<&DataType>, depth: usize) -> Value {
    let Ok(entries) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw) else { return Value::from(raw) };
    let of = |name: &str| match of {
        Some(DataType::Map(of)) => Some(&**of),
        Some(DataType::Row(fields)) => fields.iter().find(|(field, _)| field == name).map(|(_, of)| of),
        _ => None,
    };
    let read = entries.into_iter().map(|(name, entry)| {
        let value = within(entry.get(), of(&name), depth + 1);
        (name, value)
    });
    Value::Object(read.collect())
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
        value(raw, Some(&data_type.parse().unwrap()))
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
        assert_eq!(value("0.12345678901234567890", None), Value::from("0.12345678901234567890"));
    }

    #[test]
    fn what_nests_too_deep_is_text() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let depth_of = |mut value: &Value| {
            let mut depth = 0;
            while let Some(inner) = value.as_array() {
                depth += 1;
                let Some(first) = inner.first() else { break };
                value = first;
            }
            (depth, value.as_str().map(str::to_owned))
        };
        assert_eq!(depth_of(&value(&nested(MAX_DEPTH), None)), (MAX_DEPTH, None));
        assert_eq!(depth_of(&value(&nested(MAX_DEPTH + 1), None)), (MAX_DEPTH, Some("[]".to_owned())));
        let objects = format!("{}1{}", "{\"a\":".repeat(MAX_DEPTH + 1), "}".repeat(MAX_DEPTH + 1));
        assert!(value(&objects, None).to_string().ends_with(&format!("\"{{\\\"a\\\":1}}\"{}", "}".repeat(MAX_DEPTH))));
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
