//! Keyset paging: an opaque, self-checking cursor. Pure; what is sorted and filtered is the caller's business.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Which side of its position a cursor reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The rows that follow the position in the list's order.
    After,
    /// The rows that precede it.
    Before,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Direction::After => "after",
            Direction::Before => "before",
        }
    }
}

/// A position between two rows of a sorted list.
///
/// Its text is `base64url(version "." checksum-in-hex "." JSON)`. The checksum covers the filters too, so a cursor used
/// with other filters, or damaged on its way, is refused rather than answered with the wrong rows. It guards against
/// mistakes, not against forgery: a forged cursor is only another position in a list its caller may read anyway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The order of the list, as in the `sort` parameter.
    pub sort: String,
    /// Which side of the position is read.
    pub direction: Direction,
    /// Value of the sorted column at the position; empty when the list is sorted by the key itself.
    pub value: String,
    /// Key of the row at the position: the tie-break.
    pub key: String,
}

/// Why a cursor is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not a cursor of ours at all.
    #[error("this is not a cursor that this service gave out")]
    Garbage,
    /// Given out by another version.
    #[error("this cursor was given out by another version of this service")]
    Version,
    /// Belongs to a list in another order.
    #[error("this cursor belongs to a list with another `sort`")]
    Sort,
    /// Damaged, or belongs to other filters.
    #[error("this cursor was damaged or belongs to a list with other filters")]
    Checksum,
}

const VERSION: &str = "1";

/// Wraps JSON as the text of a cursor. The checksum covers `scope` too: what the cursor belongs to.
pub(super) fn seal(json: &str, scope: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{VERSION}.{:08x}.{json}", checksum(json, scope)))
}

/// The JSON of a cursor, and its checksum, which is yet to be compared.
fn opened(text: &str) -> Result<(String, String), CursorError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Garbage)?;
    let plain = String::from_utf8(bytes).map_err(|_| CursorError::Garbage)?;
    let (version, rest) = plain.split_once('.').ok_or(CursorError::Garbage)?;
    let (sum, json) = rest.split_once('.').ok_or(CursorError::Garbage)?;
    if version != VERSION {
        return Err(CursorError::Version);
    }
    Ok((json.to_owned(), sum.to_owned()))
}

/// The JSON of a cursor that belongs to `scope`.
pub(super) fn open(text: &str, scope: &str) -> Result<String, CursorError> {
    let (json, sum) = opened(text)?;
    if sum == format!("{:08x}", checksum(&json, scope)) { Ok(json) } else { Err(CursorError::Checksum) }
}

impl Cursor {
    /// The text for a list filtered by `filters` (any canonical spelling of them).
    pub fn encode(&self, filters: &str) -> String {
        let json = serde_json::json!([self.sort, self.direction.as_str(), self.value, self.key]).to_string();
        seal(&json, filters)
    }

    /// Reads `text` for a list sorted by `sort` and filtered by `filters`.
    pub fn decode(text: &str, sort: &str, filters: &str) -> Result<Self, CursorError> {
        let (json, sum) = opened(text)?;
        let (its_sort, direction, value, key): (String, String, String, String) =
            serde_json::from_str(&json).map_err(|_| CursorError::Garbage)?;
        if its_sort != sort {
            return Err(CursorError::Sort);
        }
        if sum != format!("{:08x}", checksum(&json, filters)) {
            return Err(CursorError::Checksum);
        }
        let direction = match direction.as_str() {
            "after" => Direction::After,
            "before" => Direction::Before,
            _ => return Err(CursorError::Garbage),
        };
        if value.contains('\0') || key.contains('\0') {
            return Err(CursorError::Garbage);
        }
        Ok(Cursor { sort: its_sort, direction, value, key })
    }
}

fn checksum(json: &str, filters: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(json.as_bytes());
    hasher.update(b"\0");
    hasher.update(filters.as_bytes());
    hasher.finalize()
}

/// Rows skipped before page `page` (1-based), or `None` where that is more than `max_offset`.
pub fn offset_of(page: u64, page_size: u32, max_offset: u64) -> Option<u64> {
    let offset = page.saturating_sub(1).checked_mul(u64::from(page_size))?;
    (offset <= max_offset).then_some(offset)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor() -> Cursor {
        Cursor {
            sort: "-updatedAt".into(),
            direction: Direction::After,
            value: "2026-01-01T00:00:00.000001Z".into(),
            key: "order-1".into(),
        }
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back_as_written(value in "[^\0]*", key in "[^\0]*", filters in ".*", before: bool) {
            let direction = if before { Direction::Before } else { Direction::After };
            let written = Cursor { sort: "orderId".into(), direction, value, key };
            prop_assert_eq!(Cursor::decode(&written.encode(&filters), "orderId", &filters), Ok(written));
        }

        #[test]
        fn any_text_is_refused_without_a_panic(text in ".*") {
            prop_assert!(Cursor::decode(&text, "-updatedAt", "").is_err());
        }
    }

    #[test]
    fn a_changed_character_anywhere_is_noticed() {
        let text = cursor().encode("status=Paid");
        for position in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(Cursor::decode(&changed, "-updatedAt", "status=Paid").is_err(), "{changed} was accepted");
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let text = cursor().encode("status=Paid");
        assert_eq!(Cursor::decode(&text, "-updatedAt", "status=Sent"), Err(CursorError::Checksum));
        assert_eq!(Cursor::decode(&text, "updatedAt", "status=Paid"), Err(CursorError::Sort));
        let newer = URL_SAFE_NO_PAD.encode("2.00000000.[]");
        assert_eq!(Cursor::decode(&newer, "-updatedAt", ""), Err(CursorError::Version));
        assert_eq!(Cursor::decode("", "-updatedAt", ""), Err(CursorError::Garbage));
    }

    /// Postgres cannot be asked for a NUL.
    #[test]
    fn a_cursor_that_holds_a_nul_is_garbage() {
        for (value, key) in [("a\0", "b"), ("a", "b\0")] {
            let forged = Cursor { value: value.into(), key: key.into(), ..cursor() }.encode("");
            assert_eq!(Cursor::decode(&forged, "-updatedAt", ""), Err(CursorError::Garbage));
        }
    }

    #[test]
    fn offsets_end_at_the_limit() {
        assert_eq!(offset_of(1, 50, 0), Some(0));
        assert_eq!(offset_of(201, 50, 10_000), Some(10_000));
        assert_eq!(offset_of(202, 50, 10_000), None);
        assert_eq!(offset_of(u64::MAX, 200, 10_000), None);
    }
}
