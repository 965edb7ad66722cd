//! Columns that stand in the key of a record and not in its value: ksqlDB writes the keys of its tables so, and a deletion is
//! nothing but a key on every engine. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::catalog::DataType;
use crate::catalog::values::value;

/// Bytes of the beginning of a window, behind the key of a table of windows.
const WINDOW: usize = 8;

/// Fields as they are written: nothing of a number is lost.
pub(super) type Fields = BTreeMap<String, Box<RawValue>>;

/// The fields of a key that is a JSON object, as Flink writes keys.
pub(super) fn fields(key: &[u8]) -> Option<Fields> {
    if key.first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(key).ok()
}

/// A key that is one value of this type: as ksqlDB writes it unless it is told otherwise (format `KAFKA`), else as JSON. `Null`
/// if it is neither.
pub(super) fn column(key: &[u8], of: &DataType) -> Value {
    let key = without_window(key, of);
    let number = match (of, key) {
        (DataType::String, text) => return std::str::from_utf8(text).map_or(Value::Null, Value::from),
        (DataType::Int, [a, b, c, d]) => Some(i32::from_be_bytes([*a, *b, *c, *d]).to_string()),
        (DataType::BigInt, bytes) => eight(bytes).map(|bytes| i64::from_be_bytes(bytes).to_string()),
        (DataType::Double, bytes) => eight(bytes).map(|bytes| f64::from_be_bytes(bytes).to_string()),
        _ => None,
    };
    match (number, std::str::from_utf8(key)) {
        (Some(number), _) => value(&number, Some(of)),
        (None, Ok(text)) if serde_json::from_str::<Value>(text).is_ok() => value(text, Some(of)),
        (None, _) => Value::Null,
    }
}

fn eight(bytes: &[u8]) -> Option<[u8; 8]> {
    bytes.try_into().ok()
}

/// Numbers tell by their length whether a window follows; a text does where what follows is a time of our days in milliseconds,
/// whose first bytes stand in no text.
fn without_window<'k>(key: &'k [u8], of: &DataType) -> &'k [u8] {
    let Some(length) = key.len().checked_sub(WINDOW) else { return key };
    let (before, window) = key.split_at(length);
    let has_window = match of {
        DataType::Int => length == 4,
        DataType::BigInt | DataType::Double => length == 8,
        DataType::String => window.starts_with(&[0, 0, 1]),
        _ => false,
    };
    if has_window { before } else { key }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_read_as_ksqldb_writes_them() {
        let window = 1_764_000_000_000_i64.to_be_bytes();
        let cases = [
            (b"ada".to_vec(), DataType::String, json!("ada")),
            ([b"ada", &window[..]].concat(), DataType::String, json!("ada")),
            ((-7_i32).to_be_bytes().to_vec(), DataType::Int, json!(-7)),
            ([&7_i32.to_be_bytes()[..], &window].concat(), DataType::Int, json!(7)),
            (5_i64.to_be_bytes().to_vec(), DataType::BigInt, json!(5)),
            ([5_i64.to_be_bytes(), window].concat(), DataType::BigInt, json!(5)),
            (9_007_199_254_740_993_i64.to_be_bytes().to_vec(), DataType::BigInt, json!("9007199254740993")),
            (1.5_f64.to_be_bytes().to_vec(), DataType::Double, json!(1.5)),
            // Where the server is told to write keys as JSON.
            (b"12".to_vec(), DataType::BigInt, json!(12)),
            (b"1.5".to_vec(), DataType::Decimal { precision: 5, scale: 2 }, json!("1.50")),
            (vec![0xff, 1], DataType::BigInt, Value::Null),
            (vec![0xff, 1], DataType::String, Value::Null),
        ];
        for (key, of, expected) in cases {
            assert_eq!(column(&key, &of), expected, "{key:?} as {of}");
        }
        let read = fields(br#"{"customer":"ada"}"#).unwrap();
        assert_eq!(
            read.iter().map(|(name, value)| (&**name, value.get())).collect::<Vec<_>>(),
            [("customer", "\"ada\"")]
        );
        assert!(fields(b"ada").is_none());
    }
}
