//! What can be selected from: sources with their columns, in types that every engine can say in its own words.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::data_type::DataType;
pub use self::from_schemas::{columns_of_avro, columns_of_json_schema};
pub use self::numbers::exact_numbers;
pub use self::topics::{Standing, standing};

mod data_type;
mod from_schemas;
pub mod infer;
mod numbers;
mod topics;
pub mod values;

/// A source: a topic, how its values are written, and what columns they have; or a view of this service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// What users write behind `FROM`: letters, digits and `_`, at most 63, compared without case.
    pub name: String,
    /// The Kafka topic; empty of a view, which has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// How the values are written.
    pub format: Format,
    /// The columns, in order; never empty.
    pub columns: Vec<Column>,
    /// The column that says when an event happened, if windows shall go by it; else they go by the record's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<EventTime>,
    /// The topic is a table: of each key, the latest record is its row. `None`: it is a stream, and each record a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
}

impl Source {
    /// Whether its rows are those of a view of this service, in its database: it is a table then, and there is no topic.
    pub fn is_view(&self) -> bool {
        self.format == Format::View
    }
}

/// How a source's values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A JSON object per record.
    Json,
    /// A JSON object per record in Confluent's framing, its JSON Schema in the registry.
    JsonSchema,
    /// Avro in Confluent's framing, its schema in the registry.
    Avro,
    /// They are in no topic: rows of a view of this service. Nobody declares such a source.
    View,
}

/// JSON without the frame that serializers of a registry put before it: a zero byte and four of the schema's number. No JSON begins with a
/// zero byte, so it is known whatever the topic is declared as; and the columns are there already, so the schema is not asked for.
pub fn unframed(json: &[u8]) -> &[u8] {
    match json {
        [0, _, _, _, _, json @ ..] => json,
        plain => plain,
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Column {
    /// Its name, as the field is spelled in the values.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// Whether it may be missing.
    #[serde(default = "yes")]
    pub nullable: bool,
}

const fn yes() -> bool {
    true
}

/// The column that says when an event happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventTime {
    /// A column of type timestamp.
    pub column: String,
    /// How much later than others an event may come, in milliseconds, and still be counted.
    pub delay_ms: u64,
}

/// What makes a topic a table: a record replaces the row of its key, and one without a value deletes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    /// The columns that are the key, never empty. They are read from the records' keys: what a value has under their names does
    /// not count.
    pub key: Vec<String>,
    /// How the keys are written.
    pub key_format: KeyFormat,
}

/// How the keys of a topic's records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyFormat {
    /// The value of the one key column as UTF-8 text, without quotes.
    Text,
    /// A JSON object with the key columns.
    Json,
}

/// Who declares a source.
#[derive(Debug, Clone, Copy)]
pub struct Declarer<'a> {
    /// As it is noted.
    pub name: &'a str,
    /// Whether other people's declarations are theirs to change, too, and the service's own topics to declare.
    pub is_operator: bool,
}

impl Declarer<'_> {
    /// Whether a declaration is theirs to change.
    pub(crate) fn may_change(&self, declaration: &Declaration) -> bool {
        self.is_operator || declaration.declared_by == self.name
    }
}

/// A source that people have declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// What is declared.
    pub source: Source,
    /// Who declared it last.
    pub declared_by: String,
    /// Greater after each change, and never the same twice, whatever was declared under the name before.
    pub version: i64,
    /// When it was declared first.
    pub created_at: Timestamp,
    /// When it was declared last.
    pub updated_at: Timestamp,
}

/// What whoever changes a declaration has read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpectedSource {
    /// Whatever is there, if anything is.
    #[default]
    Any,
    /// Nothing: the name is new.
    New,
    /// Something.
    Declared,
    /// This version.
    Version(i64),
}

impl ExpectedSource {
    /// Whether it is so.
    pub(crate) fn is(self, now: Option<&Declaration>) -> bool {
        match self {
            ExpectedSource::Any => true,
            ExpectedSource::New => now.is_none(),
            ExpectedSource::Declared => now.is_some(),
            ExpectedSource::Version(version) => now.is_some_and(|now| now.version == version),
        }
    }
}
