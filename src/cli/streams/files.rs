//! Streams and sources as files: what a folder says. Pure but for the reading of the folder.
//!
//! ```sql
//! -- name: HighValueOrders
//! -- engine: flink
//! -- wanted: running
//!
//! SELECT ORDER_ID, AMOUNT FROM orders WHERE AMOUNT > 500
//! ```

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::manager::catalog::{Column, EventTime, Format, KeyFormat, Table};

/// The keys of a header.
const KEYS: [&str; 3] = ["name", "engine", "wanted"];
const ENDING: &str = ".sql";
const SOURCE_ENDING: &str = ".source.toml";

/// What is wanted of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Written down only.
    Draft,
    /// It runs.
    Running,
    /// It keeps its state and does nothing.
    Paused,
    /// It does not run.
    Stopped,
}

impl Wanted {
    const ALL: [Wanted; 4] = [Wanted::Draft, Wanted::Running, Wanted::Paused, Wanted::Stopped];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Wanted::Draft => "draft",
            Wanted::Running => "running",
            Wanted::Paused => "paused",
            Wanted::Stopped => "stopped",
        }
    }
}

/// A stream as its file says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamFile {
    pub(super) name: String,
    pub(super) engine: Option<String>,
    pub(super) wanted: Wanted,
    pub(super) sql: String,
}

/// A source as its file says it: the body that declares it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SourceFile {
    pub(super) name: String,
    pub(super) body: Value,
}

/// What a folder says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Folder {
    pub(super) sources: Vec<SourceFile>,
    pub(super) streams: Vec<StreamFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    topic: String,
    format: Format,
    columns: Vec<Column>,
    event_time: Option<EventTimeDeclaration>,
    table: Option<TableDeclaration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableDeclaration {
    key: Vec<String>,
    key_format: KeyFormat,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventTimeDeclaration {
    column: String,
    delay_ms: u64,
}

/// Reads every file of the folder, by name. Every fault at once, each with its file.
pub(super) fn read(folder: &Path) -> Result<Folder> {
    let cannot = || format!("cannot read the folder {}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(ENDING) || name.ends_with(SOURCE_ENDING) {
            names.push((name, path));
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "{} holds no {ENDING} and no {SOURCE_ENDING} file", folder.display());
    let (mut found, mut faults) = (Folder::default(), Vec::new());
    for (name, path) in names {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
        let read = text.and_then(|text| {
            match name.strip_suffix(SOURCE_ENDING) {
                Some(source) => found.sources.push(source_of(source, &text)?),
                None => found.streams.push(stream_of(name.trim_end_matches(ENDING), &text)?),
            }
            Ok(())
        });
        if let Err(error) = read {
            faults.push(format!("{name}: {error:#}"));
        }
    }
    for (at, stream) in found.streams.iter().enumerate() {
        let is_twice = |other: &StreamFile| other.name.eq_ignore_ascii_case(&stream.name);
        if found.streams[..at].iter().any(is_twice) {
            faults.push(format!("two files have the name {}: names are compared without case", stream.name));
        }
    }
    ensure!(faults.is_empty(), "nothing was applied:\n{}", faults.join("\n"));
    Ok(found)
}

/// A header of `-- key: value`, and below it the text. An empty line ends the header, and so does any other.
fn stream_of(file: &str, text: &str) -> Result<StreamFile> {
    let mut stream = StreamFile { name: file.to_owned(), engine: None, wanted: Wanted::Running, sql: String::new() };
    let text = text.trim_start_matches('\u{feff}');
    let (mut rest, mut seen) = (text, Vec::new());
    for (number, line) in text.lines().enumerate() {
        let Some((key, value)) = header(line) else { break };
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        let place = number + 1;
        ensure!(!seen.contains(&key), "line {place}: `{key}` is there twice");
        ensure!(!value.is_empty(), "line {place}: `{key}` says nothing; leave it out");
        seen.push(key);
        match key {
            "name" => value.clone_into(&mut stream.name),
            "engine" => stream.engine = Some(value.to_owned()),
            "wanted" => {
                let words = Wanted::ALL.map(Wanted::word).join(", ");
                let found = Wanted::ALL.into_iter().find(|wanted| wanted.word() == value);
                stream.wanted =
                    found.with_context(|| format!("line {place}: wanted: {value} is not one of {words}"))?;
            }
            _ => bail!(
                "line {place}: `{key}` is no key of a header, which has {}; other comments go below an empty line",
                KEYS.join(", ")
            ),
        }
    }
    rest.trim().clone_into(&mut stream.sql);
    ensure!(!stream.sql.is_empty(), "there is no SELECT below the header");
    Ok(stream)
}

/// `-- key: value`.
fn header(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.trim_end().strip_prefix("--")?.trim_start().split_once(':')?;
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_key.then(|| (key, value.trim()))
}

fn source_of(name: &str, text: &str) -> Result<SourceFile> {
    let declared: Declaration = toml::from_str(text)?;
    let event_time = declared.event_time.map(|time| EventTime { column: time.column, delay_ms: time.delay_ms });
    let mut body = json!({ "topic": declared.topic, "format": declared.format, "columns": declared.columns });
    if let Some(event_time) = event_time {
        body["eventTime"] = json!(event_time);
    }
    if let Some(TableDeclaration { key, key_format }) = declared.table {
        body["table"] = json!(Table { key, key_format });
    }
    Ok(SourceFile { name: name.to_owned(), body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str, engine: Option<&str>, wanted: Wanted, sql: &str) -> StreamFile {
        StreamFile { name: name.to_owned(), engine: engine.map(str::to_owned), wanted, sql: sql.to_owned() }
    }

    #[test]
    fn a_file_is_a_select_with_what_else_there_is_to_say_above_it() {
        for (text, expected) in [
            ("SELECT 1", stream("f", None, Wanted::Running, "SELECT 1")),
            ("\u{feff}SELECT 1\n", stream("f", None, Wanted::Running, "SELECT 1")),
            (
                "-- name: A b\n-- engine: flink\n-- wanted: draft\n\nSELECT 1\nFROM x\n",
                stream("A b", Some("flink"), Wanted::Draft, "SELECT 1\nFROM x"),
            ),
            ("--name: A\r\nSELECT 1\r\n", stream("A", None, Wanted::Running, "SELECT 1")),
            (
                "-- Orders above 500: the big ones\nSELECT 1",
                stream("f", None, Wanted::Running, "-- Orders above 500: the big ones\nSELECT 1"),
            ),
            ("-- name: A\n\n-- note: kept\nSELECT 1", stream("A", None, Wanted::Running, "-- note: kept\nSELECT 1")),
        ] {
            assert_eq!(stream_of("f", text).unwrap(), expected, "{text:?}");
        }
        for (text, fault) in [
            ("", "no SELECT"),
            ("-- name: A\n", "no SELECT"),
            ("-- name:\nSELECT 1", "line 1: `name` says nothing"),
            ("-- name: A\n-- name: B\nSELECT 1", "line 2: `name` is there twice"),
            ("-- engin: flink\nSELECT 1", "line 1: `engin` is no key"),
            ("-- wanted: up\nSELECT 1", "up is not one of draft, running, paused, stopped"),
        ] {
            let error = stream_of("f", text).unwrap_err().to_string();
            assert!(error.contains(fault), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_source_is_what_the_api_takes() {
        let text = "topic = 'orders'\nformat = 'json'\ncolumns = [{ name = 'AMOUNT', type = 'decimal(10, 2)' }]\n\
                    event_time = { column = 'AT', delay_ms = 5 }";
        let body = source_of("orders", text).unwrap().body;
        assert_eq!(body["columns"][0], json!({ "name": "AMOUNT", "type": "decimal(10, 2)", "nullable": true }));
        assert_eq!(body["eventTime"], json!({ "column": "AT", "delayMs": 5 }));
        let table = text.replace(
            "event_time = { column = 'AT', delay_ms = 5 }",
            "table = { key = ['AMOUNT'], key_format = 'json' }",
        );
        let body = source_of("orders", &table).unwrap().body;
        assert_eq!(body["table"], json!({ "key": ["AMOUNT"], "keyFormat": "json" }));
        for wrong in [
            "topic = 'x'",
            &table.replace("key_format", "keyFormat"),
            &text.replace("json", "csv"),
            &text.replace("delay_ms", "delay"),
            &text.replace("decimal(10, 2)", "money"),
        ] {
            assert!(source_of("orders", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_fault_of_a_folder_is_told_at_once_and_nothing_is_applied() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("holds no .sql"));
        for (name, text) in
            [("a.sql", "-- x: y\nSELECT 1"), ("b.sql", ""), ("c.source.toml", "topic = 1"), ("notes.md", "-")]
        {
            write(name, text);
        }
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(
            ["a.sql: line 1", "b.sql: there is no SELECT", "c.source.toml: "].iter().all(|part| error.contains(part)),
            "{error}"
        );
        for (name, text) in [("a.sql", "SELECT 1"), ("b.sql", "-- name: A\nSELECT 1"), ("c.source.toml", "")] {
            write(name, text);
        }
        std::fs::remove_file(folder.path().join("c.source.toml")).unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("two files have the name A"));
    }
}
