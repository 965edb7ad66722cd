//! Reads JSON event payloads without building a tree: fields stay raw until a view asks for them by type.
//!
//! Together with [`super::fields`] and a view's `event.rs` this is the compiled form of the JSON Schemas in
//! `schemas/json`; a test holds the two against each other. It also refuses what Postgres' `jsonb` could not store, so
//! that a bad payload is found before a transaction is.

use std::borrow::Cow;

use crate::domain::poison::{Poison, Reason};
use crate::domain::units::Micros;

/// Deepest nesting of arrays and objects in a payload.
pub const MAX_DEPTH: usize = 64;
/// Longest digit run that is let through in a number we only store.
const MAX_STORED_DIGITS: usize = 1000;

/// Checks that `payload` is one JSON text that Postgres can store as `jsonb`, and gives it as text.
pub fn check_storable(payload: &[u8]) -> Result<&str, Poison> {
    let text = std::str::from_utf8(payload)
        .map_err(|error| Poison::new(Reason::InvalidJson, format!("the value is not UTF-8: {error}")))?;
    check_depth_and_numbers(payload)?;
    if memchr::memmem::find(payload, b"\\u").is_some() {
        check_escapes(payload)?;
    }
    Ok(text)
}

fn check_depth_and_numbers(payload: &[u8]) -> Result<(), Poison> {
    let (mut depth, mut in_string, mut digits) = (0usize, false, 0usize);
    let mut index = 0;
    while index < payload.len() {
        let byte = payload[index];
        if in_string {
            match memchr::memchr2(b'"', b'\\', &payload[index..]) {
                None => return Ok(()), // unterminated: the parser says so
                Some(at) if payload[index + at] == b'"' => {
                    in_string = false;
                    index += at + 1;
                }
                Some(at) => index += at + 2,
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let detail = format!("arrays and objects are nested deeper than {MAX_DEPTH}");
                    return Err(Poison::new(Reason::NestingTooDeep, detail));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'e' | b'E' if digits > 0 => check_exponent(&payload[index + 1..])?,
            _ => {}
        }
        digits = if byte.is_ascii_digit() || (byte == b'.' && digits > 0) { digits + 1 } else { 0 };
        if digits > MAX_STORED_DIGITS {
            let detail = format!("a number has more than {MAX_STORED_DIGITS} digits");
            return Err(Poison::new(Reason::Unrepresentable, detail));
        }
        index += 1;
    }
    Ok(())
}

fn check_exponent(after_e: &[u8]) -> Result<(), Poison> {
    let digits = after_e.strip_prefix(b"+").or_else(|| after_e.strip_prefix(b"-")).unwrap_or(after_e);
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let significant = digits[..length].iter().skip_while(|byte| **byte == b'0').count();
    if significant > 3 {
        return Err(Poison::new(Reason::Unrepresentable, "a number has an exponent beyond 999"));
    }
    Ok(())
}

/// `jsonb` holds neither NUL nor lone surrogates.
fn check_escapes(payload: &[u8]) -> Result<(), Poison> {
    let mut index = 0;
    while let Some(at) = memchr::memchr(b'\\', &payload[index..]) {
        index += at;
        let Some(code) = escape_at(&payload[index..]) else {
            index += 2; // another escape, such as \\ or \n
            if index >= payload.len() {
                break;
            }
            continue;
        };
        let low = escape_at(payload.get(index + 6..).unwrap_or_default());
        match (code, low) {
            (0, _) => return Err(Poison::new(Reason::Unrepresentable, "a text holds a NUL character (\\u0000)")),
            (0xd800..=0xdbff, Some(0xdc00..=0xdfff)) => index += 12,
            (0xd800..=0xdfff, _) => {
                return Err(Poison::new(
                    Reason::Unrepresentable,
                    format!("a text holds the lone surrogate \\u{code:04x}"),
                ));
            }
            _ => index += 6,
        }
        if index >= payload.len() {
            break;
        }
    }
    Ok(())
}

fn escape_at(bytes: &[u8]) -> Option<u32> {
    let hex = bytes.strip_prefix(b"\\u")?.get(..4)?;
    u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}

/// The text of a JSON string; borrowed when it has no escapes. `None` for anything but a string.
pub fn unquote(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// An RFC 3339 time with its offset, as microseconds since the epoch (finer digits are cut).
pub fn micros(text: &str) -> Option<Micros> {
    if !has_rfc3339_shape(text.as_bytes()) {
        return None;
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Micros(time.as_microsecond()))
}

/// `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`: what the schema's pattern asks for. The calendar is left to the parser.
fn has_rfc3339_shape(text: &[u8]) -> bool {
    let Some((date_time, rest)) = text.split_at_checked(19) else { return false };
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = date_time.iter().zip(shape).all(|(byte, kind)| match kind {
        b'd' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't'),
        other => byte == other,
    });
    let rest = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            &fraction[digits..]
        }
    };
    let zone = match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hours @ .., b':', b'0'..=b'5', minute] => {
            minute.is_ascii_digit() && matches!(hours, [b'0' | b'1', b'0'..=b'9'] | [b'2', b'0'..=b'3'])
        }
        _ => false,
    };
    fits && zone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(payload: &str) -> Option<Reason> {
        check_storable(payload.as_bytes()).err().map(|poison| poison.reason)
    }

    #[test]
    fn refuses_what_jsonb_cannot_hold() {
        assert_eq!(reason(r#"{"a":"\u0000"}"#), Some(Reason::Unrepresentable));
        assert_eq!(reason(r#"{"a":"\ud800"}"#), Some(Reason::Unrepresentable));
        assert_eq!(reason(r#"{"a":"\ude00"}"#), Some(Reason::Unrepresentable));
        assert_eq!(reason(r#"{"a":1e1000}"#), Some(Reason::Unrepresentable));
        assert_eq!(reason(&format!("[{}]", "9".repeat(1001))), Some(Reason::Unrepresentable));
        assert_eq!(reason(&"[".repeat(MAX_DEPTH + 1)), Some(Reason::NestingTooDeep));
    }

    #[test]
    fn lets_through_what_only_looks_alike() {
        for fine in [
            r#"{"a":"\\u0000"}"#,
            r#"{"a":"\ud83d\ude00"}"#,
            r#"{"a":1e999,"b":"1e1000000","c":"[[[["}"#,
            r#"{"a":"\"{[1e9999"}"#,
            r#"{"sha":"12e45678"}"#,
        ] {
            assert_eq!(reason(fine), None, "{fine}");
        }
        assert_eq!(reason(&format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))), None);
    }

    #[test]
    fn times_need_a_zone_and_a_real_date() {
        let read = micros;
        assert_eq!(read("1970-01-01T00:00:01Z"), Some(Micros(1_000_000)));
        assert_eq!(read("1970-01-01T01:00:00.0000019+01:00"), Some(Micros(1)));
        for bad in ["1970-01-01T00:00:01", "1970-01-01", "1970-02-30T00:00:00Z", "1", "", "1970-01-01T00:00:00.Z"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for loose in ["1970-01-01 00:00:00Z", "1970-01-01T00:00:00+24:00", "1970-01-01T00:00:00+12:60"] {
            assert_eq!(read(loose), None, "{loose}: not RFC 3339, though the parser would take it");
        }
    }
}
