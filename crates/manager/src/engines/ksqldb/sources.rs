//! What the server has under the names of sources: whether that is what was declared, what it lacks, and what it knows itself.

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::Ksqldb;
use super::deploy::is_refusal;
use super::entities::{Entity, Field, SourceDescription};
use super::errors::code;
use super::statements::{describe, dialect, not_made, register, takes_all, takes_key};
use crate::catalog::{Column, DataType, Format, Source};
use crate::engines::{Refusal, Select, Trouble, views};

/// Sources that are described at once where a server cannot describe all of them in one answer.
const AT_ONCE: usize = 8;

impl Ksqldb {
    /// The sources of a SELECT that the server has no name for. What it has under one of the names is what was declared, or
    /// the SELECT is refused: it would read something else.
    pub(super) async fn missing<'s>(&self, select: &'s Select) -> Result<Vec<&'s Source>, Trouble> {
        let takes_all = takes_all(select);
        let mut missing = Vec::new();
        for source in &select.sources {
            views::refuse(source)?;
            takes_key(source)?;
            match self.described(&source.name).await? {
                Some(there) => same(source, &there, takes_all)?,
                None => missing.push(source),
            }
        }
        Ok(missing)
    }

    /// Registers them.
    pub(super) async fn register_missing(&self, select: &Select) -> Result<(), Trouble> {
        for source in self.missing(select).await? {
            let statement = register(source).map_err(not_made)?;
            match self.client.command(&statement, json!({})).await? {
                Entity::Command { command_id, command_status } => {
                    self.made(&command_id, command_status).await?;
                }
                // Somebody was faster, perhaps with another one of that name.
                _ => match self.described(&source.name).await? {
                    Some(there) => same(source, &there, takes_all(select))?,
                    None => {
                        let why = format!("ksqlDB neither makes the stream `{}` nor shows it", source.name);
                        return Err(Trouble::Unavailable(why));
                    }
                },
            }
        }
        Ok(())
    }

    /// `None` if there is none of that name.
    pub(super) async fn described(&self, name: &str) -> Result<Option<SourceDescription>, Trouble> {
        match self.client.show(&describe(name).map_err(not_made)?).await {
            Ok(Entity::Source { source_description }) => Ok(Some(source_description)),
            Ok(_) => Err(Trouble::Unavailable("ksqlDB describes something else than was asked".to_owned())),
            Err(trouble) if is_refusal(&trouble, code::UNKNOWN_SOURCE) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// All streams and tables.
    pub(super) async fn all_described(&self) -> Result<Vec<SourceDescription>, Trouble> {
        let streams = self.all_of("DESCRIBE STREAMS EXTENDED;", "SHOW STREAMS;");
        let tables = self.all_of("DESCRIBE TABLES EXTENDED;", "SHOW TABLES;");
        let (mut streams, tables) = tokio::try_join!(streams, tables)?;
        streams.extend(tables);
        Ok(streams)
    }

    /// In one answer, or one by one where the server does not know how to say it in one.
    async fn all_of(&self, at_once: &str, names: &str) -> Result<Vec<SourceDescription>, Trouble> {
        match self.client.show(at_once).await {
            Ok(Entity::Sources { source_descriptions }) => return Ok(source_descriptions),
            Ok(_) => return Err(Trouble::Unavailable("ksqlDB describes something else than was asked".to_owned())),
            Err(Trouble::Refused(_)) => {}
            Err(trouble) => return Err(trouble),
        }
        let (Entity::Streams { streams: found } | Entity::Tables { tables: found }) = self.client.show(names).await?
        else {
            return Err(Trouble::Unavailable("ksqlDB shows something else than streams and tables".to_owned()));
        };
        let asked = found.into_iter().map(|source| async move { self.described(&source.name).await });
        let described: Vec<Option<SourceDescription>> =
            stream::iter(asked).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(described.into_iter().flatten().collect())
    }
}

/// As a source of the catalogue; `None` if its values are neither JSON, with the frame of a registry or without, nor Avro, or a type has no name here.
pub(super) fn source(described: SourceDescription) -> Option<Source> {
    let format = match described.value_format.as_str() {
        "JSON" => Format::Json,
        "JSON_SR" => Format::JsonSchema,
        "AVRO" => Format::Avro,
        _ => return None,
    };
    let columns: Vec<Column> = described.fields.iter().map(Field::column).collect::<Option<_>>()?;
    let (name, topic) = (described.name, described.topic);
    (!columns.is_empty()).then_some(Source { name, topic, format, columns, event_time: None, table: None })
}

/// Whether what is there is what was declared: the same topic, the same format, and the columns. One more than these is
/// another source only to who takes all of them. Which column says when something happened is not looked at.
fn same(declared: &Source, there: &SourceDescription, takes_all: bool) -> Result<(), Trouble> {
    match difference(declared, there, takes_all) {
        None => Ok(()),
        Some(difference) => {
            let (name, kind) = (&declared.name, there.kind.to_lowercase());
            let message = format!(
                "ksqlDB has a {kind} `{name}` that is not the source as it is declared: {difference}. Drop that {kind} in \
                 ksqlDB, or declare the source under another name"
            );
            Err(Trouble::Refused(Refusal { code: code::SOURCE_DIFFERS.to_owned(), message, line: None, column: None }))
        }
    }
}

fn difference(declared: &Source, there: &SourceDescription, takes_all: bool) -> Option<String> {
    if there.topic != declared.topic {
        return Some(format!("it reads the topic `{}`, not `{}`", there.topic, declared.topic));
    }
    // A table that the server has said itself is none to us: only what somebody declares is looked at.
    if declared.table.is_some() && !there.kind.eq_ignore_ascii_case("TABLE") {
        return Some("it is declared as a table".to_owned());
    }
    let format = format_word(declared.format);
    if there.value_format != format {
        return Some(format!("its values are {}, not {format}", there.value_format));
    }
    // As they are registered, or as the server itself has said them.
    let is_of =
        |column: &Column, field: &Field| field.name() == column.name || field.name() == column.name.to_uppercase();
    for column in &declared.columns {
        let Some(field) = there.fields.iter().find(|field| is_of(column, field)) else {
            return Some(format!("it has no column `{}`", column.name.to_uppercase()));
        };
        let Some(now) = field.column() else {
            return Some(format!("its column `{}` is of a type that is not known here", field.name()));
        };
        if words(&now.data_type) != words(&column.data_type) {
            return Some(format!("its column `{}` is {}, not {}", now.name, now.data_type, column.data_type));
        }
    }
    let more = there.fields.iter().find(|field| !declared.columns.iter().any(|column| is_of(column, field)));
    more.filter(|_| takes_all).map(|field| format!("it has a column `{}`, too, which `*` takes", field.name()))
}

pub(super) fn format_word(format: Format) -> &'static str {
    match format {
        Format::Json => "JSON",
        Format::JsonSchema => "JSON_SR",
        Format::Avro => "AVRO",
        // It is refused before, by its own word.
        Format::View => "NONE",
    }
}

/// A type as the server knows it: some of ours are one to it.
fn words(data_type: &DataType) -> Option<String> {
    dialect().data_type(data_type).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalog::{KeyFormat, Table};

    fn declared(columns: &[(&str, &str)]) -> Source {
        let column = |(name, of): &(&str, &str)| Column {
            name: (*name).to_owned(),
            data_type: of.parse().unwrap(),
            nullable: true,
        };
        Source {
            name: "orders".to_owned(),
            topic: "orders".to_owned(),
            format: Format::Json,
            columns: columns.iter().map(column).collect(),
            event_time: None,
            table: None,
        }
    }

    fn there(topic: &str, format: &str, columns: &[(&str, &str)]) -> SourceDescription {
        let field = |(name, of): &(&str, &str)| json!({ "name": name, "schema": { "type": of } });
        let fields: Vec<_> = columns.iter().map(field).collect();
        let described =
            json!({ "name": "orders", "type": "STREAM", "topic": topic, "valueFormat": format, "fields": fields });
        serde_json::from_value(described).unwrap()
    }

    #[test]
    fn what_differs_is_named() {
        let source = declared(&[("id", "bigint"), ("at", "timestamp(6)")]);
        let columns = [("ID", "BIGINT"), ("AT", "TIMESTAMP")];
        let other = [("ID", "STRING"), ("AT", "TIMESTAMP")];
        let more = [("ID", "BIGINT"), ("AT", "TIMESTAMP"), ("MORE", "STRING")];
        for (there, takes_all, named) in [
            (there("orders", "JSON", &columns), true, None),
            (there("orders", "JSON", &more), false, None),
            (there("orders", "JSON", &more), true, Some("`MORE`")),
            (there("other", "JSON", &columns), false, Some("the topic `other`, not `orders`")),
            (there("orders", "JSON_SR", &columns), false, Some("JSON_SR")),
            (there("orders", "JSON", &columns[..1]), false, Some("no column `AT`")),
            (there("orders", "JSON", &other), false, Some("`ID` is string, not bigint")),
        ] {
            let difference = difference(&source, &there, takes_all);
            match named {
                None => assert_eq!(difference, None),
                Some(named) => assert!(difference.as_ref().is_some_and(|d| d.contains(named)), "{difference:?}"),
            }
        }
    }

    #[test]
    fn a_stream_is_no_table() {
        let columns = [("id", "bigint")];
        let key = vec!["id".to_owned()];
        let table = Source { table: Some(Table { key, key_format: KeyFormat::Json }), ..declared(&columns) };
        let there = there("orders", "JSON", &[("ID", "BIGINT")]);
        assert_eq!(difference(&table, &there, false), Some("it is declared as a table".to_owned()));
    }

    #[test]
    fn what_the_server_says_itself_does_not_differ() {
        let there = there("orders", "AVRO", &[("odd name", "BIGINT"), ("ID", "DOUBLE")]);
        let itself: SourceDescription = serde_json::from_value(json!({
            "name": there.name, "type": there.kind, "topic": there.topic, "valueFormat": there.value_format,
            "fields": [
                { "name": "odd name", "schema": { "type": "BIGINT" } }, { "name": "ID", "schema": { "type": "DOUBLE" } },
            ],
        }))
        .unwrap();
        assert_eq!(difference(&source(there).unwrap(), &itself, true), None);
    }
}
