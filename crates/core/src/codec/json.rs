//! Reads JSON event payloads without building a tree: fields stay raw until a view asks for them by type.
//!
//! Together with [`super::fields`] and a view's `event.rs` this is the compiled form of the JSON Schemas in
//! `schemas/json`; a test holds the two against each other. It also refuses what Postgres' `jsonb` could not store, so
//! that a bad payload is found before a transaction is.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::domain::poison::{Poison, Reason};
use crate::domain::units::Micros;

/// Deepest nesting of arrays and objects in a payload.
pub const MAX_DEPTH: usize = 64;
/// Longest digit run that is let through in a number we only store.
const MAX_STORED_DIGITS: usize = 1000;
/// `jsonb` writes numbers out: the exponents of a payload may come to so many digits for each of its bytes ...
const GROWTH: usize = 8;
/// ... and to so many beyond.
const HEADROOM: usize = 4 * 1024;

/// The mark that some producers put before a text in UTF-8. RFC 8259 forbids writing it and allows passing over it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Checks that `payload` is one JSON text that Postgres can store as `jsonb`, and gives it as text, without a byte order
/// mark before it.
pub fn check_storable(payload: &[u8]) -> Result<&str, Poison> {
    let payload = payload.strip_prefix(BYTE_ORDER_MARK).unwrap_or(payload);
    if let Some(encoding) = wide_encoding(payload) {
        return Err(not_utf8(encoding));
    }
    let text = std::str::from_utf8(payload)
        .map_err(|error| Poison::new(Reason::InvalidJson, format!("the value is not UTF-8: {error}")))?;
    check_depth_and_numbers(payload)?;
    if let Some(first) = memchr::memchr(b'\\', payload) {
        check_escapes(&payload[first..])?;
    }
    Ok(text)
}

/// The refusal of JSON in another encoding than UTF-8, which RFC 8259 asks for between systems.
pub fn not_utf8(encoding: &str) -> Poison {
    let detail = format!("the value is JSON in {encoding}; expected UTF-8, as RFC 8259 asks for");
    Poison::new(Reason::InvalidJson, detail)
}

/// The name of the encoding, if the value is one JSON object in UTF-16 or UTF-32: with a byte order mark, or without one
/// if all of it reads as JSON. Nothing in UTF-8 does.
pub fn wide_encoding(payload: &[u8]) -> Option<&'static str> {
    match payload {
        [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32BE"),
        [0xff, 0xfe, 0, 0, ..] => return Some("UTF-32LE"),
        [0xfe, 0xff, ..] => return Some("UTF-16BE"),
        [0xff, 0xfe, ..] => return Some("UTF-16LE"),
        [0, _, ..] | [_, 0, ..] => {}
        _ => return None,
    }
    let (units, pairs) = (payload.chunks_exact(4), payload.chunks_exact(2));
    let (is_wide, is_long) = (pairs.remainder().is_empty(), units.remainder().is_empty());
    let utf32 = |read: fn([u8; 4]) -> u32| {
        units.clone().map(|unit| char::from_u32(read([unit[0], unit[1], unit[2], unit[3]]))).collect::<Option<String>>()
    };
    let utf16 = |read: fn([u8; 2]) -> u16| {
        char::decode_utf16(pairs.clone().map(|pair| read([pair[0], pair[1]]))).collect::<Result<String, _>>().ok()
    };
    let is_text = |text: Option<String>| text.is_some_and(|text| is_object(text.as_bytes()));
    match () {
        () if is_long && is_text(utf32(u32::from_be_bytes)) => Some("UTF-32BE"),
        () if is_long && is_text(utf32(u32::from_le_bytes)) => Some("UTF-32LE"),
        () if is_wide && is_text(utf16(u16::from_be_bytes)) => Some("UTF-16BE"),
        () if is_wide && is_text(utf16(u16::from_le_bytes)) => Some("UTF-16LE"),
        () => None,
    }
}

/// Whether the value is one JSON object in UTF-8, with a byte order mark or without.
pub fn is_object(payload: &[u8]) -> bool {
    let text = payload.strip_prefix(BYTE_ORDER_MARK).unwrap_or(payload).trim_ascii();
    text.starts_with(b"{") && text.ends_with(b"}") && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// A hint for a payload that was refused although it may be a good one in an envelope; or nothing.
pub fn envelope_hint(payload: &str) -> &'static str {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        schema: &'a RawValue,
        #[serde(borrow, rename = "payload")]
        _payload: &'a RawValue,
    }
    match serde_json::from_str::<Envelope<'_>>(payload) {
        Ok(Envelope { schema, .. }) if matches!(schema.get(), text if text.starts_with('{') || text == "null") => {
            "; this is the envelope of Kafka Connect's JsonConverter (fields `schema` and `payload`): set \
             value.converter.schemas.enable = false where it is written"
        }
        _ => "",
    }
}

fn check_depth_and_numbers(payload: &[u8]) -> Result<(), Poison> {
    let (mut depth, mut index) = (0usize, 0);
    let mut room = payload.len().saturating_mul(GROWTH).saturating_add(HEADROOM);
    while let Some(&byte) = payload.get(index) {
        index += 1;
        match byte {
            b'"' => match string_length(&payload[index..]) {
                Some(length) => index += length,
                None => return Ok(()), // unterminated: the parser says so
            },
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let detail = format!("arrays and objects are nested deeper than {MAX_DEPTH}");
                    return Err(Poison::new(Reason::NestingTooDeep, detail));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'0'..=b'9' => index += check_number(&payload[index - 1..], &mut room)? - 1,
            _ => {}
        }
    }
    Ok(())
}

/// Bytes from behind the quote that opens a string to behind the one that ends it; `None` if none does.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut index = 0;
    loop {
        let at = index + memchr::memchr2(b'"', b'\\', text.get(index..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        index = at + 2;
    }
}

/// The length of the digits and points that `text` begins with. What an exponent makes of them is taken from `room`.
fn check_number(text: &[u8], room: &mut usize) -> Result<usize, Poison> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    if length > MAX_STORED_DIGITS {
        let detail = format!("a number has more than {MAX_STORED_DIGITS} digits");
        return Err(Poison::new(Reason::Unrepresentable, detail));
    }
    if let [b'e' | b'E', exponent @ ..] = &text[length..] {
        check_exponent(exponent, room)?;
    }
    Ok(length)
}

fn check_exponent(after_e: &[u8], room: &mut usize) -> Result<(), Poison> {
    let digits = after_e.strip_prefix(b"+").or_else(|| after_e.strip_prefix(b"-")).unwrap_or(after_e);
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let significant = digits[..length].iter().skip_while(|byte| **byte == b'0').count();
    if significant > 3 {
        return Err(Poison::new(Reason::Unrepresentable, "a number has an exponent beyond 999"));
    }
    let zeros = digits[..length].iter().fold(0, |value, digit| value * 10 + usize::from(digit - b'0'));
    let Some(left) = room.checked_sub(zeros) else {
        let detail = format!(
            "written out, the numbers with exponents have more than {GROWTH} digits for each byte of the payload"
        );
        return Err(Poison::new(Reason::Unrepresentable, detail));
    };
    *room = left;
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
    usual_micros(text.as_bytes()).or_else(|| any_micros(text))
}

/// A time as most producers write it, `YYYY-MM-DDThh:mm:ss[.fraction]Z`, without the parser. `None` decides nothing:
/// [`any_micros`] does.
fn usual_micros(text: &[u8]) -> Option<Micros> {
    let (&date_time, rest) = text.split_first_chunk()?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2] = date_time else {
        return None;
    };
    let nanosecond = match rest {
        [b'Z'] => 0,
        [b'.', fraction @ .., b'Z'] if matches!(fraction.len(), 1..=9) => {
            number(fraction)? * 10i32.pow(9 - fraction.len() as u32)
        }
        _ => return None,
    };
    let year = number(&[y1, y2, y3, y4])?.try_into().ok()?;
    let two = |tens, ones| number(&[tens, ones])?.try_into().ok();
    let (hour, minute, second) = (two(h1, h2)?, two(n1, n2)?, two(s1, s2)?);
    // Without a second 60, which there may have been.
    let civil = jiff::civil::DateTime::new(year, two(m1, m2)?, two(d1, d2)?, hour, minute, second, nanosecond).ok()?;
    Some(Micros(jiff::tz::Offset::UTC.to_timestamp(civil).ok()?.as_microsecond()))
}

/// The number that at most nine digits write.
fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i32::from(byte - b'0')))
}

/// A time in any of the forms that RFC 3339 has.
fn any_micros(text: &str) -> Option<Micros> {
    if !has_rfc3339_shape(text.as_bytes()) {
        return None;
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    is_a_second(text, time).then(|| Micros(time.as_microsecond()))
}

/// Whether a time that was read from `text` exists: second 60 does at the end of the months that had one.
///
/// It is read as the second before, as Java's `Instant` and our own parser do: Unix time has no other name for it.
pub fn is_a_second(text: &str, time: jiff::Timestamp) -> bool {
    let clock = text.split_once(['T', 't', ' ']).map_or("", |(_, clock)| clock);
    let digits = clock.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b':').filter(|byte| *byte != b':');
    let says_sixty = digits.skip(4).eq(*b"60");
    !says_sixty || is_leap_second(time.to_zoned(jiff::tz::TimeZone::UTC).datetime())
}

/// The years whose June, and those whose December ended with a leap second (IERS Bulletin C). None was announced since;
/// of those to come nobody can know, so from 2027 on the end of June and of December is believed.
const LEAP_JUNES: [i16; 11] = [1972, 1981, 1982, 1983, 1985, 1992, 1993, 1994, 1997, 2012, 2015];
const LEAP_DECEMBERS: [i16; 16] =
    [1972, 1973, 1974, 1975, 1976, 1977, 1978, 1979, 1987, 1989, 1990, 1995, 1998, 2005, 2008, 2016];
const FIRST_UNKNOWN_YEAR: i16 = 2027;

/// Whether a leap second followed this second.
fn is_leap_second(second: jiff::civil::DateTime) -> bool {
    let years = match (second.month(), second.day()) {
        (6, 30) => &LEAP_JUNES[..],
        (12, 31) => &LEAP_DECEMBERS[..],
        _ => return false,
    };
    (second.hour(), second.minute()) == (23, 59)
        && (years.contains(&second.year()) || second.year() >= FIRST_UNKNOWN_YEAR)
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
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

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
        // Behind an escape, which must be passed over by two bytes and not by more.
        assert_eq!(reason(r#"{"aaaaaaaaaaaa":"\\","b":1e1000,"c":"x"}"#), Some(Reason::Unrepresentable));
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
            r#"{"a":"\\1e99999"}"#,
        ] {
            assert_eq!(reason(fine), None, "{fine}");
        }
        assert_eq!(reason(&format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))), None);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_and_other_encodings_are_named() {
        assert_eq!(check_storable(b"\xef\xbb\xbf{}"), Ok("{}"));
        let text = r#"{"a":"\u00fc"}"#;
        let wide16 = |to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
        let wide32 = |to: fn(u32) -> [u8; 4]| text.chars().flat_map(|letter| to(letter as u32)).collect::<Vec<u8>>();
        for (name, mark, bytes) in [
            ("UTF-16BE", &b"\xfe\xff"[..], wide16(u16::to_be_bytes)),
            ("UTF-16LE", b"\xff\xfe", wide16(u16::to_le_bytes)),
            ("UTF-32BE", b"\0\0\xfe\xff", wide32(u32::to_be_bytes)),
            ("UTF-32LE", b"\xff\xfe\0\0", wide32(u32::to_le_bytes)),
        ] {
            for payload in [bytes.clone(), [mark, &bytes[..]].concat()] {
                let poison = check_storable(&payload).unwrap_err();
                assert!(poison.reason == Reason::InvalidJson && poison.detail.contains(name), "{poison}");
            }
        }
        assert_eq!(wide_encoding(b"\0\0\xfe\xff"), Some("UTF-32BE"), "the mark says it");
        assert_eq!(wide_encoding(b"{\0}"), None, "NUL bytes alone are another fault");
    }

    #[test]
    fn depth_and_digits_are_counted_where_they_are_and_up_to_their_bounds() {
        let many = |what: &str| format!("[{}]", vec![what; 2 * MAX_STORED_DIGITS].join(","));
        for fine in [many("{}"), many("[]"), many("1"), many("1.5"), "9".repeat(MAX_STORED_DIGITS)] {
            assert_eq!(reason(&fine), None, "{}", &fine[..10]);
        }
        assert_eq!(reason(r#"{"x":"a\"1e99999"}"#), None, "the string goes on behind its escaped quote");
        let half = "9".repeat(MAX_STORED_DIGITS / 2);
        assert_eq!(reason(&format!("[{half}.{half}]")), Some(Reason::Unrepresentable), "the point is one of them");
        // Right behind a text or a number.
        for opened in [r#"""["#, "1[", r#"1""{"#] {
            assert_eq!(reason(&opened.repeat(MAX_DEPTH)), None, "{opened}");
            assert_eq!(reason(&opened.repeat(MAX_DEPTH + 1)), Some(Reason::NestingTooDeep), "{opened}");
        }
        // Neither is a number: what they are, the parser says.
        assert_eq!(reason("[e99999]"), None);
        assert_eq!(reason(&format!("[.{}]", "9".repeat(MAX_STORED_DIGITS))), None);
    }

    #[test]
    fn exponents_may_come_to_a_few_digits_for_each_byte() {
        for exponent in ["e999", "E+999", "e-999", "e000999"] {
            let numbers = format!("[{}]", vec![format!("1.5{exponent}"); 100].join(","));
            let fewest = (100 * 999 - HEADROOM).div_ceil(GROWTH);
            assert!(numbers.len() < fewest, "the spaces behind it make it as long as it has to be");
            assert_eq!(reason(&format!("{numbers:<fewest$}")), None, "{exponent}");
            let too_few = fewest - 1;
            assert_eq!(reason(&format!("{numbers:<too_few$}")), Some(Reason::Unrepresentable), "{exponent}");
        }
        // A few of them pass in any payload, and what is text or has no exponent counts for nothing.
        assert_eq!(reason("[1e999,1e999,1e-999,1e999]"), None);
        assert_eq!(reason(&format!("[{}]", vec![r#""1e999""#; 1_000].join(","))), None);
        assert_eq!(reason(&format!("[{}]", vec!["1e0"; 10_000].join(","))), None);
    }

    #[test]
    fn escapes_are_passed_over_by_their_length() {
        for fine in
            [r#""\\""#, r#""\n\\u0000""#, r#""\u0041\u00fc""#, r#""\ud83d\ude00\ud83d\ude00""#, r#""\\\\ud800""#]
        {
            assert_eq!(reason(fine), None, "{fine}");
        }
        for bad in [
            r#""\n\u0000""#,
            r#""\u0041\u0000""#,
            r#""\\\u0000""#,
            r#""\ud83d\ude00\u0000""#,
            r#""\ud83d\ud83d\ude00""#,
            r#""\ud83d\u0041""#,
            r#""\udfff""#,
            r#""\ude00\ud83d""#,
            r#""\ud83d""#,
            // Far from the beginning, where a position is not nearly the length of an escape.
            r#""some text \n\u0000""#,
            r#""some text \u0041\u0000""#,
            r#""some text \ud83d\ude00\u0000""#,
        ] {
            assert_eq!(reason(bad), Some(Reason::Unrepresentable), "{bad}");
        }
    }

    #[test]
    fn an_object_is_one_whole_object() {
        assert!([&b"{}"[..], b"\xef\xbb\xbf {\"a\":[1]} ", b"\n{}\n"].iter().all(|value| is_object(value)));
        assert!(![&b"{"[..], b"}", b"{x}", b"[1]", b"1", b"", b"{}{}", b"{}]"].iter().any(|value| is_object(value)));
    }

    #[test]
    fn a_leap_second_is_read_where_there_was_one_whatever_the_offset() {
        let before = |text| micros(text).unwrap();
        assert_eq!(micros("2016-12-31T23:59:60Z"), Some(before("2016-12-31T23:59:59Z")));
        assert_eq!(micros("2017-01-01T05:29:60.25+05:30"), Some(before("2016-12-31T23:59:59.25Z")));
        assert_eq!(micros("2012-06-30T16:59:60-07:00"), Some(before("2012-06-30T23:59:59Z")));
        assert!(micros("2035-06-30T23:59:60Z").is_some(), "nobody can know yet");
        for never in [
            "2016-12-31T12:00:60Z",
            "2016-12-31T23:58:60Z",
            "2016-12-30T23:59:60Z",
            "2016-03-31T23:59:60Z",
            "2016-06-30T23:59:60Z",
            "2025-12-31T23:59:60Z",
            "2016-12-31T23:59:60+01:00",
            "2016-12-31T23:59:61Z",
        ] {
            assert_eq!(micros(never), None, "{never}");
        }
    }

    #[test]
    fn the_envelope_of_kafka_connect_is_recognised() {
        assert!(envelope_hint(r#"{"schema":{"type":"struct"},"payload":{"a":1}}"#).contains("schemas.enable"));
        assert!(envelope_hint(r#"{"schema":null,"payload":{"a":1}}"#).contains("schemas.enable"));
        for other in [r#"{"payload":{}}"#, r#"{"schema":"x","payload":{}}"#, "[1]", "{"] {
            assert_eq!(envelope_hint(other), "", "{other}");
        }
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

    #[test]
    fn what_most_producers_write_is_read_without_the_parser() {
        let read = |text: &str| usual_micros(text.as_bytes());
        assert_eq!(read("1970-01-01T00:00:01Z"), Some(Micros(1_000_000)));
        assert_eq!(read("2024-02-29T23:59:59.123456789Z"), Some(Micros(1_709_251_199_123_456)));
        assert_eq!(read("2026-01-31T12:00:00.25Z"), Some(Micros(1_769_860_800_250_000)));
        for other in
            ["1970-01-01T00:00:01+00:00", "2016-12-31T23:59:60Z", "1970-01-01t00:00:00z", "2026-02-29T00:00:00Z"]
        {
            assert_eq!(read(other), None, "{other}");
        }
    }

    /// A time in the usual form, or one that is wrong or another one by a little.
    fn near_a_time() -> impl Strategy<Value = String> {
        let year = prop_oneof![4 => 1970..2100, 1 => 0..10_000];
        let calendar = (year, 1..13, prop_oneof![20 => 1..29, 4 => 28..33, 1 => Just(0)]);
        let clock = (prop_oneof![20 => 0..24, 1 => Just(24)], 0..60, prop_oneof![20 => 0..60, 2 => 59..62]);
        let zone = prop_oneof![8 => Just("Z"), 1 => prop::sample::select(vec!["z", "+00:00", "-05:30", ""])];
        let slip = prop::option::weighted(0.3, (0..40usize, "[0-9TZ:. +-]"));
        (calendar, clock, prop_oneof!["", "\\.[0-9]{1,9}", "\\.[0-9]{0,11}"], zone, slip).prop_map(
            |((year, month, day), (hour, minute, second), fraction, zone, slip)| {
                let mut text =
                    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}");
                if let Some((at, other)) = slip.filter(|(at, _)| *at < text.len()) {
                    text.replace_range(at..=at, &other);
                }
                text
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
        #[test]
        fn the_usual_way_never_says_otherwise_than_the_parser(text in near_a_time()) {
            let (usual, parsed) = (usual_micros(text.as_bytes()), any_micros(&text));
            prop_assert!(usual.is_none() || usual == parsed, "{}: {:?}, {:?}", text, usual, parsed);
            // What it leaves to the parser it has to leave: another zone, or a second 60.
            let is_usual = text.ends_with('Z') && text.contains('T') && !text.contains(":60");
            prop_assert!(usual.is_some() || parsed.is_none() || !is_usual, "{} was left to the parser", text);
        }
    }
}
