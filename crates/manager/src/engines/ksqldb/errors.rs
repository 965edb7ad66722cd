//! What an answer that is no success means. ksqlDB's codes do not tell limits from wrong statements, so its status, its code
//! and the few words that never change decide; whole sentences never do.

use std::time::Duration;

use serde::Deserialize;

use crate::engines::{Refusal, Trouble};

/// What was asked for, as far as it decides what a failure leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It changes nothing.
    Read,
    /// It may have been done although no answer came.
    Write,
    /// It asks for rows: over when its connection is.
    Rows,
}

/// Refusals that the engine itself looks at.
pub(super) mod code {
    /// The name of a stream or table is taken.
    pub const NAME_TAKEN: &str = "name_taken";
    /// A stream or table of our name fills a topic that is not ours.
    pub const NAME_OF_ANOTHER: &str = "name_of_another";
    /// No query of that id.
    pub const UNKNOWN_QUERY: &str = "unknown_query";
    /// No stream or table of that name.
    pub const UNKNOWN_SOURCE: &str = "unknown_source";
    /// What the server has under a source's name is not what was declared.
    pub const SOURCE_DIFFERS: &str = "source_differs";
    /// A new text cannot take the place of the old one.
    pub const CANNOT_UPGRADE: &str = "cannot_upgrade";
    /// A stream was asked for, and the query gives a table, or the other way round.
    pub const WRONG_KIND: &str = "wrong_kind";
    /// A stream was said, and it is a table, or the other way round.
    pub const OTHER_KIND: &str = "other_kind";
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    error_code: u32,
    #[serde(default)]
    message: String,
}

/// Of an answer that is no success.
pub(super) fn trouble(purpose: Purpose, status: u16, retry_after: Option<Duration>, body: &[u8]) -> Trouble {
    let envelope: Option<Envelope> = serde_json::from_slice(body).ok();
    let (error_code, said) = envelope.map_or((0, String::new()), |envelope| (envelope.error_code, envelope.message));
    let words = squeezed(&said);
    let has = |marker: &str| words.contains(marker);
    let message = sentence(&said, status);
    let limited =
        ["push queries to exceed", "persistent queries to exceed", "bandwidth rate limit"].into_iter().any(has);
    if limited || error_code == 40003 || status == 429 {
        return Trouble::Busy { reason: message, retry_after };
    }
    match status {
        401 => Trouble::Unavailable(format!(
            "ksqlDB refuses the log-in: check ksqldb.username and ksqldb.password ({message})"
        )),
        403 if error_code == 40301 => refused("forbidden_topic", message, &words),
        403 => {
            Trouble::Unavailable(format!("ksqlDB refuses this user: give ksqldb.username an allowed role ({message})"))
        }
        503 => Trouble::Unavailable(format!("ksqlDB serves no requests now ({error_code}): {message}")),
        500.. => of_server(purpose, message, &words),
        _ => refused(refusal_code(error_code, &words), message, &words),
    }
}

/// A 500: some say that nothing was done, some that it is the statement's fault, some nothing.
fn of_server(purpose: Purpose, message: String, words: &str) -> Trouble {
    if words.contains("Refusing to delete topic") {
        return refused("topic_shared", message, words);
    }
    let is_not_done = ["Could not write the statement", "cannot process further DDL", "initializing transaction"]
        .iter()
        .any(|w| words.contains(w));
    match purpose {
        Purpose::Write if !is_not_done => Trouble::Unknown(format!("ksqlDB failed, and may have done it: {message}")),
        Purpose::Rows => {
            // The query endpoints hide most reasons behind one text: too many pull queries at once is among them.
            Trouble::Unavailable(format!("ksqlDB failed and hides why; too many queries at once may be it: {message}"))
        }
        _ => Trouble::Unavailable(format!("ksqlDB failed: {message}")),
    }
}

fn refusal_code(error_code: u32, words: &str) -> &'static str {
    const MARKERS: [(&str, &str); 13] = [
        ("Syntax Error", "syntax"),
        ("Unknown queryId", code::UNKNOWN_QUERY),
        ("Failed to terminate query", code::UNKNOWN_QUERY),
        ("Query with id:", code::UNKNOWN_QUERY),
        ("Cannot upgrade", code::CANNOT_UPGRADE),
        ("not yet supported for", code::CANNOT_UPGRADE),
        ("not upgradeable", code::CANNOT_UPGRADE),
        ("Invalid result type", code::WRONG_KIND),
        ("Incompatible data source type", code::OTHER_KIND),
        ("with the same name already exists", code::NAME_TAKEN),
        ("prohibited", "property_prohibited"),
        ("Could not find STREAM/TABLE", code::UNKNOWN_SOURCE),
        ("does not exist", code::UNKNOWN_SOURCE),
    ];
    let found = MARKERS.iter().find(|(marker, _)| words.contains(marker)).map(|(_, code)| *code);
    match found {
        Some(code) => code,
        None if words.contains("REPLACE") && words.contains("is not supported") => code::CANNOT_UPGRADE,
        None if error_code == 40001 => "refused_by_engine",
        None => "bad_request",
    }
}

fn refused(code: &str, message: String, words: &str) -> Trouble {
    let position = position(words);
    Trouble::Refused(Refusal {
        code: code.to_owned(),
        message: position.map_or(message.as_str(), |(_, _, behind)| behind).to_owned(),
        line: position.map(|(line, _, _)| line),
        column: position.map(|(_, column, _)| column),
    })
}

/// `line L:C:` of the parser at the head of a message, or `Line: L, Col: C:` of what resolves names, and what stands behind it.
fn position(words: &str) -> Option<(u32, u32, &str)> {
    let (line, rest) = match words.strip_prefix("line ") {
        Some(rest) => rest.split_once(':')?,
        None => words.strip_prefix("Line: ")?.split_once(", Col: ")?,
    };
    let (column, rest) = rest.split_once(':')?;
    let rest = rest.split("Statement:").next().unwrap_or_default();
    Some((line.parse().ok()?, column.parse().ok()?, rest.trim()))
}

/// Line ends and the tabs of wrapped causes as single spaces: words that were torn apart stand together again.
pub(super) fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What people read: without the statement that is glued on, without a stack.
fn sentence(said: &str, status: u16) -> String {
    let own = said.split("\nStatement:").next().unwrap_or_default();
    let own = own.split("\n\tat ").next().unwrap_or_default();
    let own = squeezed(own);
    if own.is_empty() { format!("HTTP {status} without a reason") } else { own }
}

/// The first line of a stack of causes.
pub(super) fn first_cause(text: &str) -> String {
    sentence(text.split("\n\tat ").next().unwrap_or_default(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, code: u32, message: &str) -> Trouble {
        let body =
            serde_json::json!({ "@type": "statement_error", "error_code": code, "message": message }).to_string();
        trouble(Purpose::Write, status, None, body.as_bytes())
    }

    fn code_of(trouble: Trouble) -> String {
        match trouble {
            Trouble::Refused(refusal) => refusal.code,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn limits_are_told_from_wrong_statements_by_their_words() {
        for (status, code, message) in [
            (400, 40001, "it would cause active, push queries to\n\texceed the configured limit: 100"),
            (400, 40000, "active, persistent queries to exceed the configured limit"),
            (400, 40000, "is at bandwidth rate limit for pull queries"),
            (400, 40003, "Maximum number of push queries exceeded"),
            (429, 42900, "rate limit"),
        ] {
            assert!(matches!(of(status, code, message), Trouble::Busy { .. }), "{message}");
        }
    }

    #[test]
    fn refusals_have_codes_and_places() {
        for (message, code) in [
            ("Cannot add stream 'X': a stream with the same name already exists", code::NAME_TAKEN),
            ("Unknown queryId: X", code::UNKNOWN_QUERY),
            ("Failed to terminate query with query ID: 'transient_X_1'", code::UNKNOWN_QUERY),
            ("Cannot upgrade data source: X", code::CANNOT_UPGRADE),
            ("Upgrades not\n\tyet supported for a StreamAggregate", code::CANNOT_UPGRADE),
            ("Query is not upgradeable. Plan step of type X must have matching y.", code::CANNOT_UPGRADE),
            ("Invalid result type. It produces a TABLE.", code::WRONG_KIND),
            ("Incompatible data source type is table, but", code::OTHER_KIND),
            ("X does not exist.", code::UNKNOWN_SOURCE),
            ("An override is prohibited: [x]", "property_prohibited"),
            ("something new", "refused_by_engine"),
        ] {
            assert_eq!(code_of(of(400, 40001, message)), code, "{message}");
        }
        let Trouble::Refused(refusal) = of(400, 40001, "line 2:10: Syntax Error\nodd\nStatement: SELECT secret") else {
            panic!("a syntax error is a refusal");
        };
        assert_eq!((refusal.line, refusal.column, refusal.code.as_str()), (Some(2), Some(10), "syntax"));
        assert_eq!(refusal.message, "Syntax Error odd");
    }

    #[test]
    fn names_that_are_not_found_have_places_too() {
        let Trouble::Refused(refusal) = of(400, 40001, "Line: 2, Col: 8: SELECT column 'NOCOL' cannot be resolved.")
        else {
            panic!("it is a refusal");
        };
        assert_eq!((refusal.line, refusal.column), (Some(2), Some(8)));
        assert_eq!(refusal.message, "SELECT column 'NOCOL' cannot be resolved.");
    }

    #[test]
    fn a_fault_of_the_server_leaves_open_what_it_leaves_open() {
        assert!(matches!(
            of(500, 50000, "Could not write the statement into the command topic"),
            Trouble::Unavailable(_)
        ));
        assert!(matches!(of(500, 50000, "something"), Trouble::Unknown(_)));
        assert!(matches!(of(502, 0, ""), Trouble::Unknown(_)));
        assert!(matches!(of(503, 50302, "not yet"), Trouble::Unavailable(_)));
        assert_eq!(code_of(of(500, 50000, "Refusing to delete topic")), "topic_shared");
        assert!(matches!(trouble(Purpose::Read, 500, None, b""), Trouble::Unavailable(_)));
        assert!(matches!(trouble(Purpose::Read, 404, None, b""), Trouble::Refused(_)));
    }
}
