//! A query's rows as the seeds' clients read them, one JSON text each: the header first, then rows, then how it ended. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use crate::catalog::Column;
use crate::engines::{End, Row, RowKind, Seen};

/// What a reader is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// First.
    Header {
        /// `{"header":{"queryId":"…","schema":"…"}}`.
        text: String,
        /// The schema in it.
        schema: String,
    },
    /// `{"row":{"columns":[…]}}`, with `"kind"` where it is no insert and `"tombstone":true` in the row where it is gone.
    Row(String),
    /// Last.
    End {
        /// `{"finalMessage":"…","end":"…"}`, or `{"errorMessage":{"message":"…"},"end":"…"}` if it is not a good one. With
        /// `"leftOut"` where something is not in the rows, and `"tables"` where it has read some.
        text: String,
        /// How it ended.
        end: End,
        /// More about that.
        reason: Option<String>,
    },
}

impl Line {
    /// The JSON, on one line.
    pub fn text(&self) -> &str {
        match self {
            Line::Header { text, .. } | Line::Row(text) | Line::End { text, .. } => text,
        }
    }

    /// What went wrong, if it is an end that is not a good one.
    pub fn fault(&self) -> Option<&str> {
        match self {
            Line::End { end: End::Failed(why) | End::Interrupted(why), .. } => Some(why),
            _ => None,
        }
    }
}

pub(super) fn header(id: &str, columns: &[Column], schema: String) -> Line {
    let text = json!({ "header": { "queryId": id, "schema": schema, "columns": columns } }).to_string();
    Line::Header { text, schema }
}

pub(super) fn row(row: &Row) -> Line {
    #[derive(Serialize)]
    struct Columns<'r> {
        columns: &'r [Value],
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        tombstone: bool,
    }
    #[derive(Serialize)]
    struct Written<'r> {
        row: Columns<'r>,
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<RowKind>,
    }
    let tombstone = row.kind == RowKind::Delete;
    let kind = (row.kind != RowKind::Insert).then_some(row.kind);
    let written = Written { row: Columns { columns: &row.values, tombstone }, kind };
    Line::Row(serde_json::to_string(&written).expect("values of JSON can be written"))
}

/// Its stable word.
pub(super) const fn word(end: &End) -> &'static str {
    match end {
        End::Limit => "limit",
        End::Complete => "complete",
        End::Cancelled => "cancelled",
        End::Failed(_) => "failed",
        End::Interrupted(_) => "interrupted",
    }
}

pub(super) fn end(end: &End, reason: Option<String>, seen: &Seen) -> Line {
    let word = word(end);
    let message = match end {
        End::Limit => "Limit Reached",
        End::Complete => "Query Completed",
        End::Cancelled => "Query Cancelled",
        End::Failed(why) | End::Interrupted(why) => why.as_str(),
    };
    let mut text = match end {
        End::Failed(_) | End::Interrupted(_) => json!({ "errorMessage": { "message": message }, "end": word }),
        _ => json!({ "finalMessage": message, "end": word }),
    };
    if let Some(reason) = &reason {
        text["reason"] = Value::from(reason.as_str());
    }
    if !seen.left_out.is_nothing() {
        text["leftOut"] = json!(seen.left_out);
    }
    if !seen.tables.is_empty() {
        text["tables"] = json!(seen.tables);
    }
    Line::End { text: text.to_string(), end: end.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::{LeftOut, TableSeen};

    #[test]
    fn defect_11_a_row_says_what_happened_to_it() {
        let text = |kind| row(&Row { kind, values: vec![Value::from(1), Value::from("1.50")] }).text().to_owned();
        assert_eq!(text(RowKind::Insert), r#"{"row":{"columns":[1,"1.50"]}}"#);
        assert_eq!(text(RowKind::UpdateBefore), r#"{"row":{"columns":[1,"1.50"]},"kind":"updateBefore"}"#);
        assert_eq!(text(RowKind::UpdateAfter), r#"{"row":{"columns":[1,"1.50"]},"kind":"updateAfter"}"#);
        assert_eq!(text(RowKind::Delete), r#"{"row":{"columns":[1,"1.50"],"tombstone":true},"kind":"delete"}"#);
    }

    #[test]
    fn an_end_tells_whether_it_is_a_good_one() {
        let text = |way: End| end(&way, None, &Seen::default()).text().to_owned();
        assert_eq!(text(End::Limit), r#"{"end":"limit","finalMessage":"Limit Reached"}"#);
        assert_eq!(text(End::Complete), r#"{"end":"complete","finalMessage":"Query Completed"}"#);
        assert_eq!(text(End::Cancelled), r#"{"end":"cancelled","finalMessage":"Query Cancelled"}"#);
        let interrupted = text(End::Interrupted("cut".to_owned()));
        assert_eq!(interrupted, r#"{"end":"interrupted","errorMessage":{"message":"cut"}}"#);
        assert_eq!(end(&End::Failed("no".to_owned()), None, &Seen::default()).fault(), Some("no"));
        assert_eq!(end(&End::Limit, None, &Seen::default()).fault(), None);
    }

    #[test]
    fn an_end_tells_what_was_left_out_and_which_tables_were_met() {
        let why = Some("Divide by zero error".to_owned());
        let refreshed_at = jiff::Timestamp::UNIX_EPOCH;
        let table =
            TableSeen { name: "customers".to_owned(), rows: 2, bytes: 90, refused: 1, refreshed_at, refresh_ms: 5_000 };
        let seen = Seen { left_out: LeftOut { refused: 3, why, ..LeftOut::default() }, tables: vec![table] };
        let text = end(&End::Limit, None, &seen).text().to_owned();
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            told["leftOut"],
            json!({"refused": 3, "late": 0, "future": 0, "failedGroups": 0, "why": "Divide by zero error"})
        );
        assert_eq!(
            told["tables"],
            json!([{
                "name": "customers", "rows": 2, "bytes": 90, "refused": 1, "refreshedAt": "1970-01-01T00:00:00Z",
                "refreshMs": 5_000,
            }])
        );
    }
}
