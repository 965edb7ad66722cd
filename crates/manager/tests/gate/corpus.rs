//! The published corpus: what must be refused, with the code of the first fault, and what must pass, with what it becomes.
//!
//! `*.refused.txt`: `== code | kind | reason`, then the text. `*.passes.txt`: `== kind | reason`, the text, `=> ` and the text on
//! one line as it is sent. The kind is `adhoc`, `pull`, `persistent`, or `any` for the first and the last. Between `⟦` and `⟧`
//! stands what can't be seen (`U+0000`) or would be long (`5000 x (`).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use streamview_manager::catalog::{Column, DataType, Format, Source};
use streamview_manager::engines::EngineKind;
use streamview_manager::gate::lexer::lex;
use streamview_manager::gate::{Dialect, Kind, WithViews, check, compose};
use streamview_manager::settings::Limits;

pub struct Case {
    pub expected: String,
    pub kinds: Vec<Kind>,
    pub reason: String,
    pub text: String,
}

fn kinds(word: &str) -> Vec<Kind> {
    match word {
        "adhoc" => vec![Kind::AdHoc { pull: false }],
        "pull" => vec![Kind::AdHoc { pull: true }],
        "persistent" => vec![Kind::Persistent],
        "any" => vec![Kind::AdHoc { pull: false }, Kind::Persistent],
        other => panic!("no kind of query: {other}"),
    }
}

/// Puts in what stands between `⟦` and `⟧`.
fn unmarked(text: &str) -> String {
    let mut parts = text.split('⟦');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (mark, rest) = part.split_once('⟧').unwrap();
        match mark.strip_prefix("U+") {
            Some(hex) => plain.push(char::from_u32(u32::from_str_radix(hex, 16).unwrap()).unwrap()),
            None => {
                let (times, what) = mark.split_once(" x ").unwrap();
                plain.push_str(&what.repeat(times.parse().unwrap()));
            }
        }
        plain.push_str(rest);
    }
    plain
}

fn entries(file: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gate").join(file);
    let text = fs::read_to_string(path).unwrap();
    let body = text.split_once("\n== ").unwrap().1;
    body.split("\n== ")
        .map(|entry| {
            let (head, rest) = entry.split_once('\n').unwrap_or((entry, ""));
            (head.to_owned(), rest.trim_end_matches('\n').to_owned())
        })
        .collect()
}

pub fn refused(dialect: &str) -> Vec<Case> {
    let cases = entries(&format!("{dialect}.refused.txt")).into_iter().map(|(head, text)| {
        let mut parts = head.splitn(3, " | ");
        let expected = parts.next().unwrap().to_owned();
        let kinds = kinds(parts.next().unwrap());
        Case { expected, kinds, reason: parts.next().unwrap().to_owned(), text: unmarked(&text) }
    });
    cases.collect()
}

pub fn passes(dialect: &str) -> Vec<Case> {
    let cases = entries(&format!("{dialect}.passes.txt")).into_iter().map(|(head, body)| {
        let (kind, reason) = head.split_once(" | ").unwrap();
        let (text, expected) = body.rsplit_once("\n=> ").unwrap();
        Case { expected: unmarked(expected), kinds: kinds(kind), reason: reason.to_owned(), text: unmarked(text) }
    });
    cases.collect()
}

pub fn dialect(name: &str) -> &'static Dialect {
    Dialect::of(EngineKind::ALL.into_iter().find(|engine| engine.name() == name).unwrap())
}

/// The sources of the corpus: as ksqlDB names them, or as people do.
pub fn catalogue(dialect: &str) -> Vec<Source> {
    let names: &[&str] = match dialect {
        "ksqldb" => &["ORDERS", "CUSTOMERS", "PAYMENTS", "Clicks", "view_x_ffffffff"],
        _ => &["orders", "customers", "Payments", "clicks", "view_x_ffffffff", "order"],
    };
    names
        .iter()
        .map(|name| Source {
            name: (*name).to_owned(),
            topic: name.to_ascii_lowercase(),
            format: Format::Json,
            columns: vec![Column { name: "id".to_owned(), data_type: DataType::BigInt, nullable: true }],
            event_time: None,
            table: None,
        })
        .collect()
}

fn get_through(name: &str) -> String {
    let mut found = String::new();
    let cases = refused(name);
    assert!(cases.len() >= 200, "{} attempts", cases.len());
    // A view of the service stands beside the sources: the manager checks so for engines that read none.
    let (sources, views) = (catalogue(name), ["totals".to_owned()]);
    let catalogue = WithViews { sources: &sources, views: &views };
    for case in cases {
        for kind in &case.kinds {
            let outcome = check(&case.text, dialect(name), *kind, &Limits::default(), &catalogue);
            let code = match &outcome {
                Ok(gated) => format!("passed as {:?}", gated.select.sql),
                Err(faults) => faults[0].code.to_owned(),
            };
            if code != case.expected {
                writeln!(found, "{} ({kind:?}): {code} instead of {}\n", case.reason, case.expected).unwrap();
            }
            for fault in outcome.err().into_iter().flatten() {
                assert!(fault.line >= 1 && fault.column >= 1, "{fault}: {}", case.reason);
                let lines = case.text.split('\n').count();
                assert!(fault.line as usize <= lines, "{fault}: {}", case.reason);
                assert!(fault.message.len() < 400 && !fault.message.contains(['\n', '\0']), "{fault}");
            }
        }
    }
    found
}

#[test]
fn no_attempt_on_ksqldb_gets_through() {
    assert_eq!(get_through("ksqldb"), "");
}

#[test]
fn no_attempt_on_flink_gets_through() {
    assert_eq!(get_through("flink"), "");
}

#[test]
fn no_attempt_on_the_embedded_engine_gets_through() {
    assert_eq!(get_through("embedded"), "");
}

fn wrongly_refused(name: &str) -> String {
    let mut found = String::new();
    let cases = passes(name);
    assert!(cases.len() >= 60, "{} statements", cases.len());
    for case in cases {
        for kind in &case.kinds {
            match check(&case.text, dialect(name), *kind, &Limits::default(), &catalogue(name)) {
                Ok(gated) => {
                    if gated.normalized != case.expected {
                        writeln!(found, "{}:\n   {}\nnot {}\n", case.reason, gated.normalized, case.expected).unwrap();
                    }
                    assert!(!gated.select.sources.is_empty());
                    let prefix = "CREATE STREAM X AS";
                    let made = compose::join(dialect(name), prefix, &gated.select, "").unwrap();
                    let code =
                        lex(made.text(), dialect(name)).unwrap().into_iter().filter(|token| token.is_code()).count();
                    let users = lex(&gated.normalized, dialect(name)).unwrap();
                    assert_eq!(code, 4 + users.iter().filter(|token| token.is_code()).count());
                }
                Err(faults) => writeln!(found, "{}: {}\n", case.reason, faults[0]).unwrap(),
            }
        }
    }
    found
}

#[test]
fn good_statements_of_ksqldb_pass() {
    assert_eq!(wrongly_refused("ksqldb"), "");
}

#[test]
fn good_statements_of_flink_pass() {
    assert_eq!(wrongly_refused("flink"), "");
}

#[test]
fn good_statements_of_the_embedded_engine_pass() {
    assert_eq!(wrongly_refused("embedded"), "");
}

/// A code that is told is in the document, and one in the document is told by the corpus.
#[test]
fn every_code_is_documented_and_seen() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sql-gate.md");
    let page = fs::read_to_string(page).unwrap();
    let table = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let documented: BTreeSet<String> = table.map(|(code, _)| code.to_owned()).collect();
    let seen: BTreeSet<String> =
        ["ksqldb", "flink", "embedded"].into_iter().flat_map(refused).map(|case| case.expected).collect();
    assert_eq!(documented, seen);
}
