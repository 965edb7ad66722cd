//! The statements that are sent. A user's SELECT enters by the gate's composers only; everything else is made of our names,
//! quoted names of the catalogue, and words that stand here.

use super::sources::format_word;
use crate::catalog::{DataType, KeyFormat, Source};
use crate::engines::{Changes, EngineKind, Refusal, Select, Trouble};
use crate::gate::Dialect;
use crate::gate::compose::{ComposeError, Composed, EngineName, join, quote_identifier, statement, string_literal};
use crate::gate::lexer::{Token, TokenKind, lex};

pub(super) fn dialect() -> &'static Dialect {
    Dialect::of(EngineKind::Ksqldb)
}

/// What could not be made into a statement: a name or a text that the gate let through and a composer does not.
pub(super) fn not_made(error: ComposeError) -> Trouble {
    Trouble::Refused(Refusal { code: "not_composed".to_owned(), message: error.to_string(), line: None, column: None })
}

type Made<T> = Result<T, ComposeError>;

/// `STREAM` or `TABLE`.
pub(super) fn kind(changes: Changes) -> &'static str {
    match changes {
        Changes::Append => "STREAM",
        Changes::Upsert => "TABLE",
    }
}

/// `EXPLAIN SELECT …`: columns, sources, plan.
pub(super) fn explain(select: &Select) -> Made<Composed> {
    join(dialect(), "EXPLAIN", select, "")
}

/// A SELECT alone, for somebody who looks.
pub(super) fn alone(select: &Select) -> Made<Composed> {
    join(dialect(), "", select, "")
}

/// A pull query as one for changes, which is what EXPLAIN is known to judge: the names and types of both are the same.
pub(super) fn as_changes(select: &Select) -> Made<Select> {
    let Select { sql, sources } = without_limit(select)?;
    Ok(Select { sql: format!("{}\nEMIT CHANGES", sql.trim_end()), sources })
}

/// `EXPLAIN CREATE STREAM … AS SELECT …`: refused where the SELECT gives a table.
pub(super) fn explain_create(probe: &EngineName, select: &Select) -> Made<Composed> {
    join(dialect(), &format!("EXPLAIN CREATE STREAM {probe} AS"), &without_limit(select)?, "")
}

/// How a topic that is there already is told to the server: it refuses numbers that differ from what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub partitions: usize,
    pub replicas: u32,
}

/// `CREATE [OR REPLACE] STREAM name WITH (…) AS SELECT …`.
pub(super) fn create_as(
    replaces: bool,
    changes: Changes,
    (sink, topic): (&EngineName, &str),
    shape: Shape,
    select: &Select,
) -> Made<Composed> {
    let verb = if replaces { "CREATE OR REPLACE" } else { "CREATE" };
    let (kind, topic, Shape { partitions, replicas }) = (kind(changes), string_literal(topic)?, shape);
    let with = format!("KAFKA_TOPIC={topic}, PARTITIONS={partitions}, REPLICAS={replicas}, VALUE_FORMAT='JSON'");
    join(dialect(), &format!("{verb} {kind} {sink} WITH ({with}) AS"), select, "")
}

/// `CREATE STREAM IF NOT EXISTS name (columns) WITH (…)` of a source of the catalogue.
///
/// Columns get upper-case names, as ksqlDB reads names without quotes: it finds the fields of values in any case. Only where
/// two differ in nothing else they keep their spelling.
///
/// A topic that is a table becomes a `CREATE TABLE`, whose key the server reads from the records' keys; see [`takes_key`].
pub(super) fn register(source: &Source) -> Made<String> {
    let upper: Vec<String> = source.columns.iter().map(|column| column.name.to_uppercase()).collect();
    let name = |at: usize| {
        let is_alone = upper.iter().filter(|other| **other == upper[at]).count() == 1;
        quote_identifier(if is_alone { &upper[at] } else { &source.columns[at].name })
    };
    let mut columns = Vec::new();
    for (at, column) in source.columns.iter().enumerate() {
        let is_key = source.table.as_ref().is_some_and(|table| table.key.contains(&column.name));
        let key = if is_key { " PRIMARY KEY" } else { "" };
        columns.push(format!("{} {}{key}", name(at)?, dialect().data_type(&column.data_type)?));
    }
    let format = format_word(source.format);
    let mut with = format!("KAFKA_TOPIC={}, VALUE_FORMAT='{format}'", string_literal(&source.topic)?);
    if let Some(time) = &source.event_time
        && let Some(at) = source.columns.iter().position(|column| column.name == time.column)
    {
        with += &format!(", TIMESTAMP={}", string_literal(&name(at)?)?);
    }
    let kind = match &source.table {
        None => "STREAM",
        Some(table) => {
            let key_format = if table.key_format == KeyFormat::Text { "KAFKA" } else { "JSON" };
            with += &format!(", KEY_FORMAT='{key_format}'");
            "TABLE"
        }
    };
    let (source, columns) = (quote_identifier(&source.name)?, columns.join(", "));
    statement(dialect(), &format!("CREATE {kind} IF NOT EXISTS {source} ({columns}) WITH ({with});"))
}

/// Whether the server reads the keys of a table as they are declared. Its format of plain text writes numbers in binary, and a key
/// of one column in JSON is that value, not an object.
pub(super) fn takes_key(source: &Source) -> Result<(), Trouble> {
    let Some(table) = &source.table else { return Ok(()) };
    let is_text =
        |key: &String| source.columns.iter().any(|column| column.name == *key && column.data_type == DataType::String);
    let why = match table.key_format {
        KeyFormat::Text if !table.key.iter().all(is_text) => "is a number written as text: declare it as string",
        KeyFormat::Json if table.key.len() == 1 => {
            "is one column in a JSON object, which ksqlDB reads for several only"
        }
        KeyFormat::Text | KeyFormat::Json => return Ok(()),
    };
    let message = format!("the key of table `{}` {why}", source.name);
    Err(Trouble::Refused(Refusal { code: "table_key".to_owned(), message, line: None, column: None }))
}

/// `DESCRIBE name`.
pub(super) fn describe(name: &str) -> Made<String> {
    statement(dialect(), &format!("DESCRIBE {};", quote_identifier(name)?))
}

/// `DROP STREAM IF EXISTS name`. Never with its topic: that goes first and cannot be undone if the rest fails.
pub(super) fn drop_sink(changes: Changes, sink: &EngineName) -> Made<String> {
    statement(dialect(), &format!("DROP {} IF EXISTS {sink};", kind(changes)))
}

/// `TERMINATE`, `PAUSE`, `RESUME` or `EXPLAIN` and a query's id, which came from the server.
pub(super) fn about_query(word: &'static str, id: &str) -> Made<String> {
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && id.len() <= 300;
    let begins_well = id.starts_with(|first: char| first.is_ascii_alphabetic());
    // `ALL` is no id: it is every query.
    if !is_plain || !begins_well || id.eq_ignore_ascii_case("ALL") {
        return Err(ComposeError::Name(id.to_owned()));
    }
    statement(dialect(), &format!("{word} {id};"))
}

/// Whether a SELECT takes all columns of a source: `*`, `a.*`.
pub(super) fn takes_all(select: &Select) -> bool {
    // What cannot be read is not sent either.
    let Ok(tokens) = lex(&select.sql, dialect()) else { return false };
    let code: Vec<&Token<'_>> = tokens.iter().filter(|token| token.is_code()).collect();
    let is_of_all = |before: &Token<'_>| before.is_word("SELECT") || before.is_symbol(",") || before.is_symbol(".");
    code.windows(2).any(|pair| pair[1].is_symbol("*") && is_of_all(pair[0]))
}

/// A SELECT as a persistent query has it: the LIMIT at its end is cut off.
fn without_limit(select: &Select) -> Made<Select> {
    let tokens = lex(&select.sql, dialect())?;
    let mut code = tokens.iter().enumerate().rev().filter(|(_, token)| token.is_code());
    let (last, before) = (code.next(), code.next());
    let sql = match (last, before) {
        (Some((_, number)), Some((at, limit))) if number.kind == TokenKind::Number && limit.is_word("LIMIT") => {
            tokens[..at].iter().map(|token| token.text).collect()
        }
        _ => select.sql.clone(),
    };
    Ok(Select { sql, sources: select.sources.clone() })
}

/// Whether a SELECT asks for changes; else it asks for what is there now.
pub(super) fn emits_changes(select: &Select) -> bool {
    let Ok(tokens) = lex(&select.sql, dialect()) else { return false };
    let code: Vec<&Token<'_>> = tokens.iter().filter(|token| token.is_code()).collect();
    code.windows(2).any(|pair| pair[0].is_word("EMIT") && pair[1].is_word("CHANGES"))
}

/// Whether a SELECT ends by itself after so many rows.
pub(super) fn has_limit(select: &Select) -> bool {
    without_limit(select).is_ok_and(|without| without.sql != select.sql)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalog::{Column, EventTime, Format, Table};

    fn select(sql: &str) -> Select {
        Select { sql: sql.to_owned(), sources: Vec::new() }
    }

    #[test]
    fn sources_are_registered_with_the_names_that_queries_without_quotes_mean() {
        let column =
            |name: &str, of: &str| Column { name: name.to_owned(), data_type: of.parse().unwrap(), nullable: true };
        let source = Source {
            name: "or`ders".to_owned(),
            topic: "it's".to_owned(),
            format: Format::Json,
            columns: vec![
                column("order_id", "bigint"),
                column("a", "string"),
                column("A", "string"),
                column("at", "timestamp(3)"),
            ],
            event_time: Some(EventTime { column: "at".to_owned(), delay_ms: 0 }),
            table: None,
        };
        assert_eq!(
            register(&source).unwrap(),
            "CREATE STREAM IF NOT EXISTS `or``ders` (`ORDER_ID` BIGINT, `a` VARCHAR, `A` VARCHAR, `AT` TIMESTAMP) WITH \
             (KAFKA_TOPIC='it''s', VALUE_FORMAT='JSON', TIMESTAMP='`AT`');"
        );
    }

    #[test]
    fn a_topic_that_is_a_table_is_registered_as_one_if_the_server_reads_its_keys() {
        let column =
            |name: &str, of: &str| Column { name: name.to_owned(), data_type: of.parse().unwrap(), nullable: true };
        let source = |key: &[&str], key_format| Source {
            name: "customers".to_owned(),
            topic: "customers".to_owned(),
            format: Format::Json,
            columns: vec![column("id", "bigint"), column("name", "string")],
            event_time: None,
            table: Some(Table { key: key.iter().map(|name| (*name).to_owned()).collect(), key_format }),
        };
        assert_eq!(
            register(&source(&["name"], KeyFormat::Text)).unwrap(),
            "CREATE TABLE IF NOT EXISTS `customers` (`ID` BIGINT, `NAME` VARCHAR PRIMARY KEY) WITH \
             (KAFKA_TOPIC='customers', VALUE_FORMAT='JSON', KEY_FORMAT='KAFKA');"
        );
        for (key, key_format, is_taken) in [
            (&["name"][..], KeyFormat::Text, true),
            (&["id"], KeyFormat::Text, false),
            (&["name"], KeyFormat::Json, false),
            (&["id", "name"], KeyFormat::Json, true),
        ] {
            assert_eq!(takes_key(&source(key, key_format)).is_ok(), is_taken, "{key:?} {key_format:?}");
        }
    }

    #[test]
    fn defect_02_the_limit_and_emit_changes_are_tokens_and_not_text() {
        let limited = select("SELECT 'LIMIT 5' FROM t EMIT CHANGES LIMIT 5");
        assert!(has_limit(&limited));
        assert_eq!(without_limit(&limited).unwrap().sql.trim_end(), "SELECT 'LIMIT 5' FROM t EMIT CHANGES");
        assert!(!has_limit(&select("SELECT credit_limit FROM t EMIT CHANGES")));
        assert!(!emits_changes(&select("SELECT 'EMIT CHANGES' FROM t")));
    }

    #[test]
    fn who_takes_all_columns_is_seen() {
        for (sql, is) in [
            ("SELECT * FROM o", true),
            ("SELECT a, o.* FROM o", true),
            ("SELECT a * b, COUNT(*) FROM o", false),
            ("SELECT '*' FROM o", false),
        ] {
            assert_eq!(takes_all(&select(sql)), is, "{sql}");
        }
    }

    #[test]
    fn no_id_ends_every_query() {
        for id in ["ALL", "all", "", "0000", "X; DROP STREAM Y", "X Y", "`X`"] {
            about_query("TERMINATE", id).unwrap_err();
        }
        assert_eq!(about_query("TERMINATE", "CSAS_X_17").unwrap(), "TERMINATE CSAS_X_17;");
    }

    #[test]
    fn defect_01_a_second_statement_is_not_composed() {
        let sink = EngineName::parse("VIEW_X_0123abcd").unwrap();
        let shape = Shape { partitions: 1, replicas: 1 };
        for sql in
            ["SELECT * FROM a; DROP STREAM b DELETE TOPIC", "SELECT * FROM a; TERMINATE ALL", "SELECT * FROM a --"]
        {
            create_as(false, Changes::Append, (&sink, "t"), shape, &select(sql)).unwrap_err();
        }
    }
}
