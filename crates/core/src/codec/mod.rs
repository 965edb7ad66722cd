//! From record bytes to an envelope: the headers every event carries, whatever its payload format.
//!
//! Payload formats live beside this file, told apart by content: plain JSON ([`json`]), and where the value or a header
//! names a schema ([`frame`]) Avro ([`avro`]) or JSON again. What a schema's name means stands in [`schemas`].

pub mod avro;
pub mod dlq_headers;
pub mod fields;
pub mod frame;
pub mod json;
pub mod schemas;

use crate::domain::poison::{Poison, Reason};
use crate::domain::record::Record;
use crate::domain::units::Sequence;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// What the record says about its event outside the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The record key: the id of what the event is about.
    pub key: &'a str,
    /// Number of the event within its key, from `first_sequence` on.
    pub sequence: Sequence,
    /// `x-event-type`, if there.
    pub event_type: Option<&'a str>,
    /// `x-event-version`; 1 if missing.
    pub version: u32,
}

/// A record that cannot be an event, with as much of its identity as could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<'a> {
    /// Why.
    pub poison: Poison,
    /// Key and sequence, when both are readable: the key is then held at that sequence.
    pub place: Option<(&'a str, Sequence)>,
    /// The key alone, when it is readable.
    pub key: Option<&'a str>,
}

/// Bounds that a record has to keep.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of key and value together.
    pub max_record_bytes: usize,
    /// Smallest sequence number.
    pub first_sequence: Sequence,
}

/// Reads key and headers, and checks the record's size. The payload is not looked at.
pub fn head<'a>(record: &Record<'a>, limits: Limits) -> Result<(Head<'a>, &'a [u8]), Refused<'a>> {
    let key = read_key(record).map_err(|poison| Refused { poison, place: None, key: None })?;
    let refuse = |poison, sequence: Option<Sequence>| Refused {
        poison,
        place: sequence.map(|sequence| (key, sequence)),
        key: Some(key),
    };
    let sequence = read_sequence(record, limits.first_sequence).map_err(|poison| refuse(poison, None))?;
    if record.size() > limits.max_record_bytes {
        let detail = format!(
            "record has {} bytes, more than projector.max_record_bytes = {}",
            record.size(),
            limits.max_record_bytes
        );
        return Err(refuse(Poison::new(Reason::RecordTooLarge, detail), Some(sequence)));
    }
    let version = read_version(record).map_err(|poison| refuse(poison, Some(sequence)))?;
    let event_type = read_event_type(record).map_err(|poison| refuse(poison, Some(sequence)))?;
    let Some(payload) = record.payload else {
        return Err(refuse(Poison::new(Reason::NullPayload, "the record has no value"), Some(sequence)));
    };
    Ok((Head { key, sequence, event_type, version }, payload))
}

fn read_key<'a>(record: &Record<'a>) -> Result<&'a str, Poison> {
    let Some(key) = record.key else {
        return Err(Poison::new(Reason::NullKey, "the record has no key; expected the id as UTF-8"));
    };
    match std::str::from_utf8(key) {
        Ok("") => Err(Poison::new(Reason::InvalidKey, "the key is empty")),
        Ok(text) if text.len() > MAX_KEY_BYTES => {
            Err(Poison::new(Reason::InvalidKey, format!("the key has {} bytes, at most {MAX_KEY_BYTES}", text.len())))
        }
        Ok(text) if text.contains('\0') => Err(Poison::new(Reason::InvalidKey, "the key holds a NUL character")),
        Ok(text) => Ok(text),
        Err(error) => Err(Poison::new(Reason::InvalidKey, format!("the key is not UTF-8: {error}"))),
    }
}

fn read_sequence(record: &Record<'_>, first: Sequence) -> Result<Sequence, Poison> {
    let text = match record.headers.only("x-sequence") {
        Ok(Some(text)) => text,
        Ok(None) => {
            let detail = format!("header x-sequence is missing{}", in_another_case(record, "x-sequence"));
            return Err(Poison::new(Reason::MissingSequence, detail));
        }
        Err(other) => {
            let detail = format!("header x-sequence stands twice, also as `{}`", String::from_utf8_lossy(other));
            return Err(Poison::new(Reason::InvalidSequence, detail));
        }
    };
    match canonical_decimal(text).map(Sequence) {
        Some(sequence) if sequence >= first => Ok(sequence),
        _ => {
            let shown = String::from_utf8_lossy(text);
            let detail = format!(
                "header x-sequence is `{shown}`; expected a decimal number from {first} without sign or leading zeros"
            );
            Err(Poison::new(Reason::InvalidSequence, detail))
        }
    }
}

/// A hint where the header is there but for its case, or nothing.
pub fn in_another_case(record: &Record<'_>, name: &str) -> String {
    let name = name.as_bytes();
    match record.headers.raw().find(|(other, _)| *other != name && other.eq_ignore_ascii_case(name)) {
        Some((other, _)) => {
            let other = String::from_utf8_lossy(other);
            format!("; there is a header `{other}`, but Kafka tells upper and lower case apart")
        }
        None => String::new(),
    }
}

/// At most 18 digits, no sign, no leading zero.
fn canonical_decimal(text: &[u8]) -> Option<i64> {
    let canonical = matches!(text, [b'0'] | [b'1'..=b'9', ..]) && text.len() <= 18;
    if !canonical {
        return None;
    }
    text.iter().try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

fn read_version(record: &Record<'_>) -> Result<u32, Poison> {
    let Some(text) = read_text(record, "x-event-version", Reason::UnsupportedVersion)? else {
        // Read as version 1 it would be folded to other amounts, without a word.
        return match in_another_case(record, "x-event-version") {
            hint if hint.is_empty() => Ok(1),
            hint => {
                let detail = format!("header x-event-version is missing{hint}");
                Err(Poison::new(Reason::UnsupportedVersion, detail))
            }
        };
    };
    match canonical_decimal(text.as_bytes()).map(u32::try_from) {
        Some(Ok(version)) if version >= 1 => Ok(version),
        _ => {
            let detail = format!("header x-event-version is `{text}`; expected a number from 1");
            Err(Poison::new(Reason::UnsupportedVersion, detail))
        }
    }
}

/// The header has the same bounds as the field `type`.
fn read_event_type<'a>(record: &Record<'a>) -> Result<Option<&'a str>, Poison> {
    let event_type = read_text(record, "x-event-type", Reason::TypeMismatch)?;
    match event_type {
        Some(text) if text.contains('\0') => {
            Err(Poison::new(Reason::Unrepresentable, "header x-event-type holds a NUL character"))
        }
        Some(text) if text.chars().nth(fields::MAX_TEXT_CHARS).is_some() => Err(Poison::new(
            Reason::SchemaViolation,
            format!("header x-event-type has more than {} characters", fields::MAX_TEXT_CHARS),
        )),
        other => Ok(other),
    }
}

fn read_text<'a>(record: &Record<'a>, name: &str, reason: Reason) -> Result<Option<&'a str>, Poison> {
    match record.headers.only(name) {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Poison::new(reason, format!("header {name} is not UTF-8"))),
        },
        Err(_) => Err(Poison::new(reason, format!("header {name} stands twice with different values"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::Headers;
    use crate::domain::units::{Offset, Partition};

    const LIMITS: Limits = Limits { max_record_bytes: 64, first_sequence: Sequence(1) };

    fn refusal(key: Option<&[u8]>, payload: Option<&[u8]>, headers: &[(&str, &str)]) -> Reason {
        let mut bytes = Vec::new();
        for (name, value) in headers {
            Headers::push(&mut bytes, name.as_bytes(), Some(value.as_bytes()));
        }
        let headers = Headers::from_encoded(&bytes);
        let record = Record { partition: Partition(0), offset: Offset(0), timestamp_ms: None, key, payload, headers };
        head(&record, LIMITS).unwrap_err().poison.reason
    }

    #[test]
    fn each_malformed_head_has_its_reason() {
        let body = Some(b"{}".as_slice());
        let key = Some(b"k".as_slice());
        assert_eq!(refusal(None, body, &[]), Reason::NullKey);
        for bad in [b"".as_slice(), b"\xff", b"a\0b", &[b'k'; MAX_KEY_BYTES + 1]] {
            assert_eq!(refusal(Some(bad), body, &[("x-sequence", "1")]), Reason::InvalidKey);
        }
        assert_eq!(refusal(key, body, &[]), Reason::MissingSequence);
        for bad in ["", "0", "01", "+1", "-1", " 1", "1 ", "1.0", "0x1", "1234567890123456789", "١"] {
            assert_eq!(refusal(key, body, &[("x-sequence", bad)]), Reason::InvalidSequence, "{bad:?}");
        }
        assert_eq!(refusal(key, body, &[("x-sequence", "1"), ("x-sequence", "2")]), Reason::InvalidSequence);
        assert_eq!(refusal(key, Some(&[b' '; 64]), &[("x-sequence", "1")]), Reason::RecordTooLarge);
        assert_eq!(refusal(key, None, &[("x-sequence", "1")]), Reason::NullPayload);
        for (name, version) in [("x-event-version", "0"), ("X-Event-Version", "2"), ("x-event-Version", "1")] {
            assert_eq!(
                refusal(key, body, &[("x-sequence", "1"), (name, version)]),
                Reason::UnsupportedVersion,
                "{name}"
            );
        }
    }

    #[test]
    fn a_header_in_another_case_is_named() {
        let mut bytes = Vec::new();
        Headers::push(&mut bytes, b"X-Sequence", Some(b"1"));
        let headers = Headers::from_encoded(&bytes);
        let (key, payload) = (Some(b"k".as_slice()), Some(b"{}".as_slice()));
        let record = Record { partition: Partition(0), offset: Offset(0), timestamp_ms: None, key, payload, headers };
        let poison = head(&record, LIMITS).unwrap_err().poison;
        assert_eq!(poison.reason, Reason::MissingSequence);
        assert!(poison.detail.contains("`X-Sequence`"), "{poison}");
    }

    #[test]
    fn repeated_equal_headers_and_the_longest_key_are_fine() {
        let mut bytes = Vec::new();
        for _ in 0..2 {
            Headers::push(&mut bytes, b"x-sequence", Some(b"999999999999999999"));
        }
        let key = [b'k'; MAX_KEY_BYTES];
        let record = Record {
            partition: Partition(0),
            offset: Offset(0),
            timestamp_ms: None,
            key: Some(&key),
            payload: Some(b"{}"),
            headers: Headers::from_encoded(&bytes),
        };
        let limits = Limits { max_record_bytes: MAX_KEY_BYTES + 2, ..LIMITS };
        let (head, _) = head(&record, limits).unwrap();
        assert_eq!((head.sequence, head.version, head.event_type), (Sequence(999_999_999_999_999_999), 1, None));
    }

    #[test]
    fn type_and_version_are_read_up_to_their_bounds() {
        let read = |event_type: &str, version: &str| {
            let mut bytes = Vec::new();
            for (name, value) in [("x-sequence", "7"), ("x-event-type", event_type), ("x-event-version", version)] {
                Headers::push(&mut bytes, name.as_bytes(), Some(value.as_bytes()));
            }
            let record = Record {
                partition: Partition(0),
                offset: Offset(0),
                timestamp_ms: None,
                key: Some(b"k"),
                payload: Some(b"{}"),
                headers: Headers::from_encoded(&bytes),
            };
            let read = head(&record, Limits { max_record_bytes: 4096, ..LIMITS });
            read.map(|(head, _)| (head.event_type.map(str::to_owned), head.version))
                .map_err(|refused| refused.poison.reason)
        };
        let longest = "ü".repeat(fields::MAX_TEXT_CHARS);
        assert_eq!(read("OrderCreated", "2"), Ok((Some("OrderCreated".to_owned()), 2)));
        assert_eq!(read(&longest, "1"), Ok((Some(longest.clone()), 1)));
        assert_eq!(read(&format!("{longest}ü"), "1"), Err(Reason::SchemaViolation));
        assert_eq!(read("a\0b", "1"), Err(Reason::Unrepresentable));
        assert_eq!(read("a", "4294967295"), Ok((Some("a".to_owned()), u32::MAX)));
        assert_eq!(read("a", "4294967296"), Err(Reason::UnsupportedVersion));
    }
}
