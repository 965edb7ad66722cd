//! Rows out of bytes: lines, whatever the chunks are, and what each says.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::errors::first_cause;
use super::schema;
use crate::catalog::Column;
use crate::catalog::values::value;
use crate::engines::ahead::MAX_ROW;
use crate::engines::{Row, RowKind};

/// Bytes as they come, given back line by line. A character may be cut by the end of a chunk, so nothing is text before
/// its line is whole.
#[derive(Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// So many are known to hold no line end.
    searched: usize,
}

impl Lines {
    /// Adds a chunk. False if what is there without a line end is longer than any row that is handed on.
    pub fn add(&mut self, chunk: &[u8]) -> bool {
        self.bytes.extend_from_slice(chunk);
        self.bytes.len() <= MAX_ROW || self.bytes[self.searched..].contains(&b'\n')
    }

    /// How many bytes wait for their line end.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes all whole lines off, with their line ends.
    pub fn whole(&mut self) -> Vec<u8> {
        let Some(end) = self.bytes[self.searched..].iter().rposition(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            return Vec::new();
        };
        let rest = self.bytes.split_off(self.searched + end + 1);
        self.searched = 0;
        std::mem::replace(&mut self.bytes, rest)
    }

    /// What is left after the last line end: the last line has none.
    pub fn rest(self) -> Vec<u8> {
        self.bytes
    }
}

/// What a line says.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// The header: the query's id, its columns and the schema as it came.
    Header { id: String, columns: Vec<Column>, schema: String },
    /// A row.
    Row(Row),
    /// The query's own last word.
    Final(String),
    /// Why it has failed.
    Error(String),
    /// The list's end, or something that concerns nobody here.
    Nothing,
}

/// A line without the frame that makes the whole a list, and whether it closed that list.
///
/// Only the frame goes: a value may end in `]` or `,` as well, but a line of the frame holds an object.
pub(super) fn unframed(line: &[u8]) -> (&[u8], bool) {
    let line = line.trim_ascii();
    let line = line.strip_prefix(b"[").unwrap_or(line);
    match line.strip_suffix(b"]") {
        Some(line) => (line.strip_suffix(b",").unwrap_or(line).trim_ascii(), true),
        None => (line.strip_suffix(b",").unwrap_or(line).trim_ascii(), false),
    }
}

#[derive(Deserialize)]
struct Said<'a> {
    header: Option<Header>,
    #[serde(borrow)]
    row: Option<Values<'a>>,
    #[serde(rename = "errorMessage")]
    error: Option<Fault>,
    #[serde(rename = "finalMessage")]
    last: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    query_id: String,
    schema: String,
}

#[derive(Deserialize)]
struct Values<'a> {
    #[serde(borrow)]
    columns: Vec<&'a RawValue>,
    #[serde(default)]
    tombstone: bool,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    message: String,
}

/// Reads an unframed line. Rows of tables replace each other, those of streams are added.
///
/// # Errors
/// When it is not what a server says.
pub(super) fn read(line: &[u8], columns: &[Column], is_table: bool) -> Result<Line, String> {
    if line.is_empty() {
        return Ok(Line::Nothing);
    }
    let odd = |error: serde_json::Error| format!("ksqlDB sent a line that is no row: {error}");
    let said: Said<'_> = serde_json::from_slice(line).map_err(odd)?;
    if let Some(header) = said.header {
        let columns = schema::columns(&header.schema)?;
        return Ok(Line::Header { id: header.query_id, columns, schema: header.schema });
    }
    if let Some(fault) = said.error {
        return Ok(Line::Error(first_cause(&fault.message)));
    }
    if let Some(last) = said.last {
        return Ok(Line::Final(last));
    }
    let Some(row) = said.row else { return Ok(Line::Nothing) };
    let kind = match (row.tombstone, is_table) {
        (true, _) => RowKind::Delete,
        (false, true) => RowKind::UpdateAfter,
        (false, false) => RowKind::Insert,
    };
    let types = columns.iter().map(|column| &column.data_type).map(Some).chain(std::iter::repeat(None));
    let values = row.columns.iter().zip(types).map(|(raw, of)| value(raw.get(), of)).collect();
    Ok(Line::Row(Row { kind, values }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::catalog::DataType;

    const STREAM: &str = concat!(
        "[{\"header\":{\"queryId\":\"transient_O_1\",\"schema\":\"`N` BIGINT, `S` STRING, `D` DECIMAL(10, 2)\"}},\n",
        "{\"row\":{\"columns\":[9007199254740993,\"Zoë 🚀\",12.50]}},\n",
        "\n",
        "{\"row\":{\"columns\":[1,\"c],\",null],\"tombstone\":true}},\n",
        "{\"continuationToken\":{\"continuationToken\":\"x\"}},\n",
        "{\"row\":{\"columns\":[2,\"{\\\"finalMessage\\\":\",-0.10]}},\n",
        "{\"finalMessage\":\"Limit Reached\"}]"
    );

    fn all(chunks: &[&[u8]]) -> (Vec<Line>, bool) {
        let (mut lines, mut columns, mut read_lines, mut closed) = (Lines::default(), Vec::new(), Vec::new(), false);
        let mut take = |bytes: &[u8]| {
            for line in bytes.split(|byte| *byte == b'\n') {
                let (line, closes) = unframed(line);
                closed |= closes;
                let line = read(line, &columns, true).unwrap();
                if let Line::Header { columns: found, .. } = &line {
                    columns.clone_from(found);
                }
                if line != Line::Nothing {
                    read_lines.push(line);
                }
            }
        };
        for chunk in chunks {
            assert!(lines.add(chunk));
            take(&lines.whole());
        }
        take(&lines.rest());
        (read_lines, closed)
    }

    fn row(kind: RowKind, values: Value) -> Line {
        Line::Row(Row { kind, values: values.as_array().unwrap().clone() })
    }

    #[test]
    fn numbers_are_not_rounded_and_tombstones_are_deletes() {
        let (lines, closed) = all(&[STREAM.as_bytes()]);
        assert_eq!(
            lines[1..],
            [
                row(RowKind::UpdateAfter, json!(["9007199254740993", "Zoë 🚀", "12.50"])),
                row(RowKind::Delete, json!([1, "c],", null])),
                row(RowKind::UpdateAfter, json!([2, "{\"finalMessage\":", "-0.10"])),
                Line::Final("Limit Reached".to_owned()),
            ]
        );
        assert!(closed);
    }

    #[test]
    fn nested_values_keep_their_numbers() {
        let of: DataType = "row<a array<bigint>, m map<string, decimal(4, 1)>>".parse().unwrap();
        let read = value("{\"a\":[9007199254740993,1],\"m\":{\"k\":1.50},\"new\":1e3}", Some(&of));
        assert_eq!(read, json!({ "a": ["9007199254740993", 1], "m": { "k": "1.50" }, "new": 1000.0 }));
    }

    #[test]
    fn the_broken_end_after_an_error_is_read() {
        let text = "[{\"header\":{\"queryId\":\"q\",\"schema\":\"`N` BIGINT\"}},\n{\"errorMessage\":{\"@type\":\"generic_error\",\
                    \"error_code\":50000,\"message\":\"org.x.StreamsException: bad\\n\\tat a.b\"}},\n]";
        let (lines, closed) = all(&[text.as_bytes()]);
        assert_eq!(lines[1], Line::Error("org.x.StreamsException: bad".to_owned()));
        assert!(closed);
    }

    proptest! {
        #[test]
        fn wherever_chunks_end_the_rows_are_the_same(cuts in prop::collection::vec(0..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (mut chunks, mut begin) = (Vec::new(), 0);
            for cut in cuts {
                chunks.push(&STREAM.as_bytes()[begin..cut]);
                begin = cut;
            }
            chunks.push(&STREAM.as_bytes()[begin..]);
            prop_assert_eq!(all(&chunks), all(&[STREAM.as_bytes()]));
        }
    }
}
