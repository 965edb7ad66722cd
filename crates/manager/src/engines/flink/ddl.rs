//! `CREATE TABLE` of sources and sinks, from the catalogue and from what a SELECT gives. No I/O.

use super::text::{Tokens, quote_identifier, statement, string_literal};
use super::types::{Clock, declared};
use crate::catalog::{Column, DataType, Format, Source};
use crate::engines::{Select, Trouble};
use crate::settings::FlinkSettings;

/// The column with the record's own time that a source has if the statement names it and the source has no event time.
pub const RECORD_TIME: &str = "record_time";

/// The longest watermark delay that is written: a day short of what `DAY(6)` holds.
const MAX_DELAY_MS: u64 = 999_998 * 86_400_000;

/// Where a source is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// The first record that is still there.
    Earliest,
    /// What comes from now on.
    Latest,
}

/// The tables that a SELECT reads, one for each spelling that it uses: Flink tells `Orders` and `orders` apart, people do not.
pub(super) fn sources(
    settings: &FlinkSettings,
    select: &Select,
    group: &str,
    start: Start,
) -> Result<Vec<String>, Trouble> {
    let tokens = Tokens::of(&select.sql)?;
    let has_record_time = tokens.names().any(|name| name == RECORD_TIME);
    let mut statements = Vec::new();
    for source in &select.sources {
        let mut spellings: Vec<String> = Vec::new();
        for name in tokens.names().filter(|name| name.eq_ignore_ascii_case(&source.name)) {
            if !spellings.contains(&name) {
                spellings.push(name);
            }
        }
        for spelling in spellings {
            statements.push(source_table(settings, source, &spelling, has_record_time, group, start)?);
        }
    }
    Ok(statements)
}

fn source_table(
    settings: &FlinkSettings,
    source: &Source,
    name: &str,
    has_record_time: bool,
    group: &str,
    start: Start,
) -> Result<String, Trouble> {
    // Flink reads Avro's times of the registry as those without a zone; JSON's end with a `Z`.
    let clock = match source.format {
        Format::Json => Clock::WithZone,
        Format::Avro => Clock::WithoutZone,
    };
    let mut parts = Vec::new();
    for column in &source.columns {
        let is_event_time = source.event_time.as_ref().is_some_and(|time| time.column == column.name);
        let data_type = match &column.data_type {
            // A watermark goes by milliseconds at most.
            DataType::Timestamp(digits) if is_event_time => &DataType::Timestamp((*digits).min(3)),
            other => other,
        };
        parts.push(format!("{} {}", quote_identifier(&column.name)?, declared(data_type, clock)?));
    }
    let is_shadowed = source.columns.iter().any(|column| column.name == RECORD_TIME);
    if let Some(time) = &source.event_time {
        parts.push(watermark(&time.column, time.delay_ms)?);
    } else if has_record_time && !is_shadowed {
        parts.push(format!("{} TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL", quote_identifier(RECORD_TIME)?));
        parts.push(watermark(RECORD_TIME, 0)?);
    }
    let mut options = vec![
        ("connector", "kafka".to_owned()),
        ("topic", source.topic.clone()),
        ("properties.bootstrap.servers", settings.kafka_bootstrap_servers.clone()),
        ("properties.group.id", group.to_owned()),
        // The default asks for committed offsets, and fails at run time for a new group.
        ("scan.startup.mode", if start == Start::Earliest { "earliest-offset" } else { "latest-offset" }.to_owned()),
    ];
    match source.format {
        Format::Json => {
            options.push(("format", "json".to_owned()));
            options.extend(json_options("").map(|(name, value)| (name, value.to_owned())));
            options.push(("json.fail-on-missing-field", "false".to_owned()));
            // A record that is no JSON fails the job: left out in silence it would be missed by nobody.
            options.push(("json.ignore-parse-errors", "false".to_owned()));
        }
        Format::Avro => {
            options.push(("format", "avro-confluent".to_owned()));
            options.push(("avro-confluent.url", settings.registry_url.clone()));
        }
    }
    table(name, &parts, &options)
}

fn watermark(column: &str, delay_ms: u64) -> Result<String, Trouble> {
    let delay = delay_ms.min(MAX_DELAY_MS);
    let (days, rest) = (delay / 86_400_000, delay % 86_400_000);
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    let (seconds, milliseconds) = (rest / 1_000 % 60, rest % 1_000);
    let column = quote_identifier(column)?;
    Ok(format!(
        "WATERMARK FOR {column} AS {column} - INTERVAL '{days} {hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}' \
         DAY(6) TO SECOND(3)"
    ))
}

/// How JSON is read and written alike; with `key.` or `value.` in front where the connector wants it.
fn json_options(prefix: &'static str) -> [(&'static str, &'static str); 1] {
    match prefix {
        "key." => [("key.json.timestamp-format.standard", "ISO-8601")],
        "value." => [("value.json.timestamp-format.standard", "ISO-8601")],
        _ => [("json.timestamp-format.standard", "ISO-8601")],
    }
}

/// The table that a SELECT fills. With a `key` its rows replace each other by it and a deletion is a record without value;
/// without one they are only added.
pub(super) fn sink(
    settings: &FlinkSettings,
    name: &str,
    topic: &str,
    columns: &[Column],
    key: &[String],
) -> Result<String, Trouble> {
    let is_avro = settings.format == "avro-confluent";
    let clock = if is_avro { Clock::WithoutZone } else { Clock::WithZone };
    let mut parts = Vec::new();
    for column in columns {
        let not_null = if key.contains(&column.name) { " NOT NULL" } else { "" };
        parts.push(format!("{} {}{not_null}", quote_identifier(&column.name)?, declared(&column.data_type, clock)?));
    }
    let mut options = vec![
        ("topic", topic.to_owned()),
        ("properties.bootstrap.servers", settings.kafka_bootstrap_servers.clone()),
        // After a crash rows since the last checkpoint come again. Exactly once would show them at checkpoints only.
        ("sink.delivery-guarantee", "at-least-once".to_owned()),
    ];
    let json = |prefix: &'static str| json_options(prefix).map(|(name, value)| (name, value.to_owned()));
    let (registry, avro) = (settings.registry_url.clone(), "avro-confluent".to_owned());
    if key.is_empty() {
        options.push(("connector", "kafka".to_owned()));
        if is_avro {
            options.extend([("format", avro), ("avro-confluent.url", registry)]);
        } else {
            options.extend([("format", "json".to_owned()), ("json.encode.decimal-as-plain-number", "true".to_owned())]);
            options.extend(json(""));
        }
    } else {
        let names = key.iter().map(|name| quote_identifier(name)).collect::<Result<Vec<_>, _>>()?;
        parts.push(format!("PRIMARY KEY ({}) NOT ENFORCED", names.join(", ")));
        options.push(("connector", "upsert-kafka".to_owned()));
        if is_avro {
            options.extend([("key.format", avro.clone()), ("key.avro-confluent.url", registry.clone())]);
            options.extend([("value.format", avro), ("value.avro-confluent.url", registry)]);
        } else {
            options.extend([("key.format", "json".to_owned()), ("value.format", "json".to_owned())]);
            options.push(("key.json.encode.decimal-as-plain-number", "true".to_owned()));
            options.push(("value.json.encode.decimal-as-plain-number", "true".to_owned()));
            options.extend(json("key."));
            options.extend(json("value."));
        }
    }
    table(name, &parts, &options)
}

fn table(name: &str, parts: &[String], options: &[(&'static str, String)]) -> Result<String, Trouble> {
    let mut written = Vec::new();
    for (option, value) in options {
        written.push(format!("{} = {}", string_literal(option)?, string_literal(value)?));
    }
    let (name, parts, written) = (quote_identifier(name)?, parts.join(", "), written.join(", "));
    statement(&format!("CREATE TEMPORARY TABLE {name} ({parts}) WITH ({written})"))
}
