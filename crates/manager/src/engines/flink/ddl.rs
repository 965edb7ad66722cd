//! `CREATE TABLE` of sources and sinks, from the catalogue and from what a SELECT gives. No I/O.

use super::text::{Tokens, quote_identifier, statement, string_literal};
use super::types::{Clock, declared};
use crate::catalog::{Column, DataType, Format, KeyFormat, Source, Table};
use crate::engines::{Refusal, Select, Trouble, views};
use crate::settings::FlinkSettings;

/// The column with the record's own time that a source has if the statement names it and the source has no event time.
pub const RECORD_TIME: &str = "record_time";

/// How times in JSON are written.
const ISO: &str = "ISO-8601";

/// The longest watermark delay that Flink takes: 99 days and what is left of the next.
const MAX_DELAY_MS: u64 = 100 * 86_400_000 - 1;

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
    views::refuse(source)?;
    refuse_framed(source)?;
    // Flink reads Avro's times of the registry as those without a zone; JSON's end with a `Z`.
    let clock = match source.format {
        Format::Json | Format::JsonSchema | Format::View => Clock::WithZone,
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
        let is_key = source.table.as_ref().is_some_and(|table| table.key.contains(&column.name));
        let not_null = if is_key { " NOT NULL" } else { "" };
        parts.push(format!("{} {}{not_null}", quote_identifier(&column.name)?, declared(data_type, clock)?));
    }
    if let Some(of) = &source.table {
        return changelog_table(settings, source, of, name, parts, group);
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
    let of_values = value_options(settings, source.format, "");
    options.extend(of_values.iter().map(|(name, value)| (name.as_str(), value.clone())));
    table(name, &parts, &options)
}

/// The table of a topic that is declared as one: read from its beginning whoever reads it, as a row of it may be old.
fn changelog_table(
    settings: &FlinkSettings,
    source: &Source,
    of: &Table,
    name: &str,
    mut parts: Vec<String>,
    group: &str,
) -> Result<String, Trouble> {
    let key_type = |key: &String| source.columns.iter().find(|column| column.name == *key).map(|of| &of.data_type);
    let other = of.key.iter().find(|key| key_type(key).is_some_and(|of| *of != DataType::String));
    if let (KeyFormat::Text, Some(key)) = (of.key_format, other) {
        let message = format!(
            "the key `{key}` of table `{}` is a number written as text, which Flink's raw format does not read: declare it \
             as string",
            source.name
        );
        return Err(Trouble::Refused(Refusal { code: "table_key".to_owned(), message, line: None, column: None }));
    }
    let names = of.key.iter().map(|name| quote_identifier(name)).collect::<Result<Vec<_>, _>>()?;
    parts.push(format!("PRIMARY KEY ({}) NOT ENFORCED", names.join(", ")));
    let mut options = vec![
        ("connector", "upsert-kafka".to_owned()),
        ("topic", source.topic.clone()),
        ("properties.bootstrap.servers", settings.kafka_bootstrap_servers.clone()),
        ("properties.group.id", group.to_owned()),
        // The key's columns are the record key's, whatever the value says of them.
        ("value.fields-include", "EXCEPT_KEY".to_owned()),
    ];
    match of.key_format {
        KeyFormat::Text => options.push(("key.format", "raw".to_owned())),
        KeyFormat::Json => {
            options.push(("key.format", "json".to_owned()));
            options.extend(json_options("key.").map(|(name, value)| (name, value.to_owned())));
        }
    }
    let of_values = value_options(settings, source.format, "value.");
    options.extend(of_values.iter().map(|(name, value)| (name.as_str(), value.clone())));
    table(name, &parts, &options)
}

fn watermark(column: &str, delay_ms: u64) -> Result<String, Trouble> {
    if delay_ms > MAX_DELAY_MS {
        let message = format!("event time `{column}` may come {delay_ms} ms late: Flink takes 100 days at most");
        return Err(Trouble::Refused(Refusal { code: "delay_too_long".to_owned(), message, line: None, column: None }));
    }
    let (days, rest) = (delay_ms / 86_400_000, delay_ms % 86_400_000);
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    let (seconds, milliseconds) = (rest / 1_000 % 60, rest % 1_000);
    let column = quote_identifier(column)?;
    Ok(format!(
        "WATERMARK FOR {column} AS {column} - INTERVAL '{days} {hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}' \
         DAY TO SECOND(3)"
    ))
}

/// Refuses JSON with the frame of a registry before it, which none of Flink's formats takes off: the job would fail at the first record.
fn refuse_framed(source: &Source) -> Result<(), Trouble> {
    if source.format != Format::JsonSchema {
        return Ok(());
    }
    let message = format!(
        "the values of `{}` are JSON Schema of a registry, with five bytes before the JSON that Flink does not read: run the query on \
         the embedded engine or ksqlDB, or declare the source as json if its producers write plain JSON all the same",
        source.name
    );
    Err(Trouble::Refused(Refusal { code: "framed_json".to_owned(), message, line: None, column: None }))
}

/// How values are read; with `value.` in front where the connector wants it.
fn value_options(settings: &FlinkSettings, format: Format, prefix: &str) -> Vec<(String, String)> {
    let options: &[(&str, &str)] = match format {
        Format::Json => &[
            ("format", "json"),
            ("json.timestamp-format.standard", ISO),
            ("json.fail-on-missing-field", "false"),
            // A record that is no JSON fails the job: left out in silence it would be missed by nobody.
            ("json.ignore-parse-errors", "false"),
        ],
        Format::Avro => &[("format", "avro-confluent"), ("avro-confluent.url", &settings.registry_url)],
        // They are refused before.
        Format::JsonSchema | Format::View => &[],
    };
    options.iter().map(|(name, value)| (format!("{prefix}{name}"), (*value).to_owned())).collect()
}

/// How JSON is read and written alike; with `key.` or `value.` in front where the connector wants it.
fn json_options(prefix: &'static str) -> [(&'static str, &'static str); 1] {
    match prefix {
        "key." => [("key.json.timestamp-format.standard", ISO)],
        "value." => [("value.json.timestamp-format.standard", ISO)],
        _ => [("json.timestamp-format.standard", ISO)],
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

fn table(name: &str, parts: &[String], options: &[(&str, String)]) -> Result<String, Trouble> {
    let mut written = Vec::new();
    for (option, value) in options {
        written.push(format!("{} = {}", string_literal(option)?, string_literal(value)?));
    }
    let (name, parts, written) = (quote_identifier(name)?, parts.join(", "), written.join(", "));
    statement(&format!("CREATE TEMPORARY TABLE {name} ({parts}) WITH ({written})"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalog::EventTime;

    fn settings() -> FlinkSettings {
        FlinkSettings {
            gateway_url: String::new(),
            rest_url: String::new(),
            kafka_bootstrap_servers: "kafka:9092".to_owned(),
            savepoint_dir: String::new(),
            format: "json".to_owned(),
            registry_url: String::new(),
        }
    }

    fn column(name: &str, data_type: &str) -> Column {
        Column { name: name.to_owned(), data_type: data_type.parse().unwrap(), nullable: true }
    }

    fn source(event_time: Option<EventTime>) -> Source {
        let columns = vec![column("id", "bigint"), column("ts", "timestamp(6)")];
        let (name, topic) = ("orders".to_owned(), "it's".to_owned());
        Source { name, topic, format: Format::Json, columns, event_time, table: None }
    }

    fn declare(sql: &str, source: Source) -> Result<Vec<String>, Trouble> {
        let select = Select { sql: sql.to_owned(), sources: vec![source] };
        sources(&settings(), &select, "sv-0123abcd", Start::Earliest)
    }

    #[test]
    fn the_time_of_the_record_is_there_if_it_is_named() {
        let [plain] = declare("SELECT id FROM orders", source(None)).unwrap().try_into().unwrap();
        assert!(
            plain.starts_with("CREATE TEMPORARY TABLE `orders` (`id` BIGINT, `ts` TIMESTAMP_LTZ(6)) WITH ("),
            "{plain}"
        );
        assert!(
            plain.contains("'topic' = 'it''s'") && plain.contains("'scan.startup.mode' = 'earliest-offset'"),
            "{plain}"
        );
        assert!(plain.contains("'properties.group.id' = 'sv-0123abcd'"), "{plain}");
        let [timed] = declare("SELECT record_time FROM orders", source(None)).unwrap().try_into().unwrap();
        assert!(
            timed.contains("`record_time` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL, WATERMARK FOR"),
            "{timed}"
        );
    }

    #[test]
    fn event_time_is_watermarked_by_its_delay() {
        let time = |delay_ms| Some(EventTime { column: "ts".to_owned(), delay_ms });
        let [table] = declare("SELECT id FROM orders", source(time(90_061_001))).unwrap().try_into().unwrap();
        let expected =
            "`ts` TIMESTAMP_LTZ(3), WATERMARK FOR `ts` AS `ts` - INTERVAL '1 01:01:01.001' DAY TO SECOND(3))";
        assert!(table.contains(expected), "{table}");
        assert!(declare("SELECT id FROM orders", source(time(u64::MAX))).is_err());
    }

    #[test]
    fn each_spelling_has_its_table() {
        let tables =
            declare("SELECT Orders.id FROM Orders JOIN `orders` AS o ON Orders.id = o.id", source(None)).unwrap();
        assert_eq!(tables.len(), 2);
        assert!(tables[0].starts_with("CREATE TEMPORARY TABLE `Orders`"), "{tables:?}");
    }

    #[test]
    fn a_topic_that_is_a_table_is_read_by_its_key_from_its_beginning() {
        let of = |key: &str, key_format| {
            let key = vec![key.to_owned()];
            let columns = vec![column("id", "bigint"), column("name", "string")];
            declare(
                "SELECT name FROM orders",
                Source { columns, table: Some(Table { key, key_format }), ..source(None) },
            )
        };
        let [text] = of("name", KeyFormat::Text).unwrap().try_into().unwrap();
        for part in [
            "(`id` BIGINT, `name` STRING NOT NULL, PRIMARY KEY (`name`) NOT ENFORCED) WITH ('connector' = 'upsert-kafka'",
            "'value.fields-include' = 'EXCEPT_KEY'",
            "'key.format' = 'raw'",
            "'value.format' = 'json'",
        ] {
            assert!(text.contains(part), "{text}");
        }
        // The connector takes none: it is always the beginning.
        assert!(!text.contains("scan.startup.mode"), "{text}");
        let [json] = of("id", KeyFormat::Json).unwrap().try_into().unwrap();
        assert!(json.contains("`id` BIGINT NOT NULL") && json.contains("'key.format' = 'json'"), "{json}");
        let Err(Trouble::Refused(refusal)) = of("id", KeyFormat::Text) else { panic!("a number as text") };
        assert_eq!(refusal.code, "table_key");
    }

    #[test]
    fn a_view_of_the_service_is_no_table_of_flink() {
        let view = Source { format: Format::View, topic: String::new(), ..source(None) };
        let Err(Trouble::Refused(refusal)) = declare("SELECT id FROM orders", view) else { panic!("a view") };
        assert_eq!(refusal.code, "view_source");
    }

    #[test]
    fn rows_with_a_key_replace_each_other() {
        let columns = [column("customer", "string"), column("n", "bigint")];
        let sink = |key: &[String]| sink(&settings(), "VIEW_X", "view_x", &columns, key).unwrap();
        assert!(sink(&[]).contains("'connector' = 'kafka'"));
        let keyed = sink(&["customer".to_owned()]);
        assert!(
            keyed.contains("`customer` STRING NOT NULL, `n` BIGINT, PRIMARY KEY (`customer`) NOT ENFORCED"),
            "{keyed}"
        );
        assert!(keyed.contains("'connector' = 'upsert-kafka'") && keyed.contains("'key.format' = 'json'"), "{keyed}");
    }
}
