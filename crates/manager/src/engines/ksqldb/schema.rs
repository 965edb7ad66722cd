//! The schema in the header of rows: `` `ORDER_ID` BIGINT KEY, `A, B` STRUCT<`X` INTEGER> ``.

use crate::catalog::{Column, DataType};

/// The columns of a header.
///
/// # Errors
/// Which column cannot be read.
pub(super) fn columns(schema: &str) -> Result<Vec<Column>, String> {
    parts(schema).into_iter().map(column).collect()
}

/// Cut at the commas that stand in no brackets and no name.
fn parts(schema: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth, mut in_name) = (Vec::new(), 0, 0_u32, false);
    for (at, letter) in schema.char_indices() {
        match letter {
            // A doubled backtick inside a name ends it and begins it again, which comes to the same.
            '`' => in_name = !in_name,
            _ if in_name => {}
            '<' | '(' => depth += 1,
            '>' | ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&schema[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&schema[begin..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn column(part: &str) -> Result<Column, String> {
    let wrong = || format!("`{part}` is no column of ksqlDB's");
    let (name, rest) = name(part).ok_or_else(wrong)?;
    let rest = rest.trim();
    // `KEY`, `HEADERS` and `HEADER('key')` say where a column comes from, not what it is.
    let marked = rest.strip_suffix(" KEY").or_else(|| rest.strip_suffix(" HEADERS"));
    let of = marked.or_else(|| rest.find(" HEADER(").map(|at| &rest[..at])).unwrap_or(rest);
    let data_type: DataType = of.parse().map_err(|error| format!("{}: {error}", wrong()))?;
    Ok(Column { name, data_type, nullable: true })
}

/// A name in backticks, and what follows.
fn name(part: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut letters = part.strip_prefix('`')?.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != '`' {
            name.push(letter);
        } else if letters.next_if(|(_, next)| *next == '`').is_some() {
            name.push('`');
        } else {
            return Some((name, &part[at + 2..]));
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_a_header_is_read() {
        let schema = "`I` INTEGER, `B` BIGINT KEY, `DEC` DECIMAL(10, 2), `TS` TIMESTAMP, `M` MAP<STRING, ARRAY<BIGINT>>, \
                      `ST` STRUCT<`X, Y` INTEGER, `Z` STRUCT<`W` MAP<STRING, DECIMAL(4, 1)>>>, `odd `` name` STRING, \
                      `E` STRUCT< >, `H` BYTES HEADER('trace, id'), `HS` ARRAY<STRUCT<`KEY` STRING, `VALUE` BYTES>> HEADERS";
        let read: Vec<(String, String)> =
            columns(schema).unwrap().into_iter().map(|column| (column.name, column.data_type.to_string())).collect();
        let expected = [
            ("I", "int"),
            ("B", "bigint"),
            ("DEC", "decimal(10, 2)"),
            ("TS", "timestamp(3)"),
            ("M", "map<string, array<bigint>>"),
            ("ST", "row<`X, Y` int, `Z` row<`W` map<string, decimal(4, 1)>>>"),
            ("odd ` name", "string"),
            ("E", "row<>"),
            ("H", "bytes"),
            ("HS", "array<row<`KEY` string, `VALUE` bytes>>"),
        ];
        let expected: Vec<(String, String)> =
            expected.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_no_column_says_which() {
        assert!(columns("`A` INTEGER, B STRING").unwrap_err().contains("B STRING"));
        assert!(columns("`A` WHATEVER").unwrap_err().contains("WHATEVER"));
    }
}
