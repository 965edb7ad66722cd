//! Which schema a record names: in five bytes before its value, or in a header. Pure.
//!
//! Both are Confluent's: the bytes are 0 and the schema's id (big endian); the header holds the same five bytes, or 1 and
//! the schema's GUID (16 bytes, big endian). Whatever merely begins with a zero byte has to be told from that: a stray
//! value must not have anybody ask for, or wait for, a schema that cannot exist.

use std::fmt;

use crate::codec::json;
use crate::domain::poison::{Poison, Reason};
use crate::domain::record::{Headers, Record};

/// The header that names the schema of a value.
pub const HEADER: &str = "__value_schema_id";
/// Registries count in signed 32-bit numbers.
const MAX_ID: u32 = i32::MAX as u32;

/// What a schema is called in its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaName {
    /// Its number, from 1 to 2^31 - 1.
    Id(u32),
    /// Its name all over the world.
    Guid(u128),
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaName::Id(id) => write!(f, "{id}"),
            SchemaName::Guid(guid) => f.write_str(&uuid_text(*guid)),
        }
    }
}

/// A value whose schema is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The schema.
    pub schema: SchemaName,
    /// What that schema describes.
    pub body: &'a [u8],
}

/// The frame of a record's value; `None` for plain JSON.
///
/// | header `__value_schema_id` | value | is read as |
/// |---|---|---|
/// | none | no zero byte at its beginning, or less than five bytes | plain JSON |
/// | none | JSON in UTF-16 or UTF-32, or an id that no registry can have | refused |
/// | none | zero byte, id, body | framed |
/// | any | a JSON object | plain JSON, as if there were no header: it needs no schema |
/// | id or GUID | anything else | framed, all of it is the body |
/// | something else | anything else | as without the header; refused if that is plain |
pub fn of<'a>(record: &Record<'a>) -> Result<Option<Frame<'a>>, Poison> {
    match record.payload {
        Some(payload) => of_value(record.headers, payload),
        None => Ok(None),
    }
}

/// The same of a value and its headers.
pub fn of_value<'a>(headers: Headers<'a>, payload: &'a [u8]) -> Result<Option<Frame<'a>>, Poison> {
    let Ok(Some(header)) = headers.only(HEADER) else { return before(payload) };
    if json::is_object(payload) {
        return Ok(None);
    }
    let frame = |schema| Ok(Some(Frame { schema, body: payload }));
    if let Some(id) = header.strip_prefix(&[0]).and_then(|id| <[u8; 4]>::try_from(id).ok()) {
        return frame(checked(u32::from_be_bytes(id), header)?);
    }
    if let Some(guid) = header.strip_prefix(&[1]).and_then(|guid| <[u8; 16]>::try_from(guid).ok()) {
        return frame(SchemaName::Guid(u128::from_be_bytes(guid)));
    }
    let framed = before(payload)?;
    if framed.is_none() {
        let detail = format!(
            "header {HEADER} has {} bytes; expected 0 and the schema's id (5 bytes), or 1 and its GUID (17 bytes)",
            header.len()
        );
        return Err(Poison::new(Reason::UnsupportedSchema, detail));
    }
    Ok(framed)
}

fn before(payload: &[u8]) -> Result<Option<Frame<'_>>, Poison> {
    let Some((id, body)) = payload.strip_prefix(&[0]).and_then(<[u8]>::split_first_chunk::<4>) else {
        return Ok(None);
    };
    if let Some(encoding) = json::wide_encoding(payload) {
        return Err(json::not_utf8(encoding));
    }
    Ok(Some(Frame { schema: checked(u32::from_be_bytes(*id), payload)?, body }))
}

fn checked(id: u32, bytes: &[u8]) -> Result<SchemaName, Poison> {
    if (1..=MAX_ID).contains(&id) {
        return Ok(SchemaName::Id(id));
    }
    // Apicurio's own clients write 0 and an id of eight bytes, unless they are told otherwise.
    let hint = if id == 0 && bytes.len() > 9 { "; ids of eight bytes are not read" } else { "" };
    let detail = format!(
        "the value looks as if it named its schema (a zero byte, then the id), but {id} is no schema id (1 to {MAX_ID}){hint}"
    );
    Err(Poison::new(Reason::UnsupportedSchema, detail))
}

/// What a value probably is that begins with a zero byte and names a schema which its registry does not know; `None`
/// where nothing speaks against a frame. Asked after the registry, because a frame may look like this by chance.
pub fn disguised(payload: &[u8]) -> Option<&'static str> {
    match payload {
        // Version 1 to 8, variant 10 (RFC 9562).
        [0, .., _] if payload.len() == 16 && matches!(payload[6] >> 4, 1..=8) && payload[8] >> 6 == 0b10 => {
            Some("a UUID as 16 bytes")
        }
        [0, ..] if payload.len() == 8 => Some("a number as 8 bytes"),
        _ => None,
    }
}

/// A UUID as it is written.
pub fn uuid_text(uuid: u128) -> String {
    let hex = format!("{uuid:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: u128 = 0x0123_4567_89ab_4cde_8f01_2345_6789_abcd;

    fn read(header: Option<&[u8]>, payload: &[u8]) -> Result<Option<(SchemaName, usize)>, Reason> {
        let mut bytes = Vec::new();
        if let Some(header) = header {
            Headers::push(&mut bytes, HEADER.as_bytes(), Some(header));
        }
        let frame = of_value(Headers::from_encoded(&bytes), payload).map_err(|poison| poison.reason)?;
        Ok(frame.map(|frame| (frame.schema, frame.body.len())))
    }

    fn wide(text: &str, bytes_each: usize) -> Vec<u8> {
        let wide = |letter: char| (letter as u32).to_be_bytes()[4 - bytes_each..].to_vec();
        text.chars().flat_map(wide).collect()
    }

    #[test]
    fn five_bytes_before_the_value_name_its_schema() {
        assert_eq!(read(None, b"{}"), Ok(None));
        assert_eq!(read(None, &[0, 0, 0, 7]), Ok(None), "too short to hold an id");
        assert_eq!(read(None, &[0, 0, 0, 0, 7, 1, 2]), Ok(Some((SchemaName::Id(7), 2))));
        assert_eq!(read(None, &[0, 0x7f, 0xff, 0xff, 0xff]), Ok(Some((SchemaName::Id(MAX_ID), 0))));
    }

    #[test]
    fn what_cannot_be_a_frame_is_refused_by_its_content_alone() {
        assert_eq!(read(None, &[0, 0, 0, 0, 0, 1]), Err(Reason::UnsupportedSchema));
        for id in [MAX_ID + 1, u32::MAX] {
            let payload = [&[0][..], &id.to_be_bytes(), &[1]].concat();
            assert_eq!(read(None, &payload), Err(Reason::UnsupportedSchema), "{id}");
        }
        for text in [r#"{"type":"OrderCreated"}"#, " {\"a\": \"ü\u{10348}\"}\n"] {
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert_eq!(read(None, &utf16), Err(Reason::InvalidJson));
            assert_eq!(read(None, &wide(text, 4)), Err(Reason::InvalidJson));
        }
        let frame = [&[0, 0, 0, 0, 0x7b][..], &[0, 0, 0, 0x22, 0, 0, 0]].concat();
        assert_eq!(read(None, &frame), Ok(Some((SchemaName::Id(0x7b), 7))), "only begins like UTF-32");
    }

    #[test]
    fn ids_of_eight_bytes_are_hinted_at_where_the_id_is_zero_and_there_is_room_for_one() {
        let said = |payload: &[u8]| of_value(Headers::from_encoded(&[]), payload).unwrap_err().detail;
        assert!(said(&[0, 0, 0, 0, 0, 0, 0, 0, 7, b'a']).ends_with("ids of eight bytes are not read"));
        assert!(said(&[0, 0, 0, 0, 0, 0, 0, 0, 7]).ends_with(')'), "nothing would be behind it");
        assert!(
            said(&[0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 7, b'a', b'b']).ends_with(')'),
            "no such id begins like that"
        );
    }

    #[test]
    fn a_record_has_the_frame_of_its_value() {
        use crate::domain::units::{Offset, Partition};
        let headers = Headers::from_encoded(&[]);
        let (partition, offset) = (Partition(0), Offset(0));
        let record = |payload| Record { partition, offset, timestamp_ms: None, key: None, payload, headers };
        let framed = Frame { schema: SchemaName::Id(7), body: &[1] };
        assert_eq!(of(&record(Some(&[0, 0, 0, 0, 7, 1]))), Ok(Some(framed)));
        assert_eq!(of(&record(None)), Ok(None));
    }

    #[test]
    fn a_header_names_the_schema_of_the_whole_value() {
        let (id, guid) = ([0, 0, 0, 0, 7], [&[1][..], &GUID.to_be_bytes()].concat());
        assert_eq!(read(Some(&id), &[2, b'a']), Ok(Some((SchemaName::Id(7), 2))));
        assert_eq!(read(Some(&guid), &[0, 0, 0, 0, 9, 9]), Ok(Some((SchemaName::Guid(GUID), 6))));
        assert_eq!(SchemaName::Guid(GUID).to_string(), "01234567-89ab-4cde-8f01-23456789abcd");
        assert_eq!(read(Some(&id), br#" {"a":1} "#), Ok(None), "plain JSON needs no schema");
        assert_eq!(read(Some(&[0, 0, 0, 0, 0]), &[2, b'a']), Err(Reason::UnsupportedSchema));
        for unusable in [&b""[..], b"7", &guid[..16], &[2; 17]] {
            assert_eq!(read(Some(unusable), &[2, b'a']), Err(Reason::UnsupportedSchema), "{unusable:?}");
            assert_eq!(read(Some(unusable), &[0, 0, 0, 0, 7, 1]), Ok(Some((SchemaName::Id(7), 1))), "{unusable:?}");
            assert_eq!(read(Some(unusable), b"{}"), Ok(None), "{unusable:?}");
        }
    }

    #[test]
    fn a_uuid_and_a_number_of_eight_bytes_are_recognised() {
        let uuid = 0x0023_4567_89ab_7cde_8f01_2345_6789_abcd_u128.to_be_bytes();
        assert_eq!(disguised(&uuid), Some("a UUID as 16 bytes"));
        assert_eq!(disguised(&1_700_000_000_123_i64.to_be_bytes()), Some("a number as 8 bytes"));
        assert_eq!(disguised(&[0; 16]), None);
        assert_eq!(disguised(&[&uuid[..], &[0]].concat()), None);
    }
}
