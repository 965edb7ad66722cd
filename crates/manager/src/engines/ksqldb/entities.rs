//! The answers of `/ksql`, as far as they are read. Fields that are not known are skipped: they differ between versions.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::catalog::{Column, DataType};

/// One answer to one statement.
#[derive(Debug, Deserialize)]
#[serde(tag = "@type")]
pub(super) enum Entity {
    #[serde(rename = "currentStatus", rename_all = "camelCase")]
    Command { command_id: String, command_status: CommandStatus },
    #[serde(rename = "queries")]
    Queries { queries: Vec<RunningQuery> },
    #[serde(rename = "streams")]
    Streams { streams: Vec<SourceInfo> },
    #[serde(rename = "tables")]
    Tables { tables: Vec<SourceInfo> },
    #[serde(rename = "kafka_topics")]
    Topics { topics: Vec<TopicInfo> },
    #[serde(rename = "sourceDescription", rename_all = "camelCase")]
    Source { source_description: SourceDescription },
    #[serde(rename = "source_descriptions", rename_all = "camelCase")]
    Sources { source_descriptions: Vec<SourceDescription> },
    #[serde(rename = "queryDescription", rename_all = "camelCase")]
    Query { query_description: QueryDescription },
    /// `warning_entity`, `terminate_query` and what is not asked for.
    #[serde(other)]
    Other,
}

/// How a command stands; also the whole answer of `/status`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommandStatus {
    pub status: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub query_id: Option<String>,
}

/// A query of `SHOW QUERIES`. Its `state` hides that it is paused, so it is not read.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunningQuery {
    pub id: String,
    pub query_string: String,
    #[serde(default)]
    pub sinks: Vec<String>,
    #[serde(default)]
    pub sink_kafka_topics: Vec<String>,
    #[serde(default)]
    pub status_count: BTreeMap<String, u32>,
    #[serde(default)]
    pub query_type: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct SourceInfo {
    pub name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TopicInfo {
    pub name: String,
    /// For each partition how many replicas it has.
    #[serde(default)]
    pub replica_info: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceDescription {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub topic: String,
    pub value_format: String,
    #[serde(default)]
    pub fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueryDescription {
    #[serde(default)]
    pub fields: Vec<Field>,
    #[serde(default)]
    pub topology: String,
    #[serde(default)]
    pub execution_plan: String,
    #[serde(default)]
    pub query_errors: Vec<QueryError>,
    #[serde(default)]
    pub consumer_group_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueryError {
    #[serde(default)]
    pub timestamp: i64,
    #[serde(default)]
    pub error_message: String,
}

/// A column, or a field of a structure.
#[derive(Debug, Deserialize)]
pub(super) struct Field {
    name: String,
    schema: Schema,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schema {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    fields: Option<Vec<Field>>,
    #[serde(default)]
    member_schema: Option<Box<Schema>>,
    #[serde(default)]
    parameters: Option<Parameters>,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    precision: u8,
    scale: u8,
}

impl Field {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As a column; `None` if it is of a type that has no name here.
    pub fn column(&self) -> Option<Column> {
        Some(Column { name: self.name.clone(), data_type: self.schema.data_type()?, nullable: true })
    }
}

impl Schema {
    fn data_type(&self) -> Option<DataType> {
        let member = || self.member_schema.as_ref()?.data_type().map(Box::new);
        Some(match self.kind.as_str() {
            "ARRAY" => DataType::Array(member()?),
            "MAP" => DataType::Map(member()?),
            "DECIMAL" => {
                let Parameters { precision, scale } = *self.parameters.as_ref()?;
                DataType::Decimal { precision, scale }
            }
            "STRUCT" => {
                let fields = self.fields.iter().flatten();
                let fields: Option<Vec<_>> =
                    fields.map(|field| Some((field.name.clone(), field.schema.data_type()?))).collect();
                DataType::Row(fields?)
            }
            plain => plain.parse().ok()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn described_types_nest() {
        let field: Field = serde_json::from_value(serde_json::json!({
            "name": "ITEMS",
            "schema": { "type": "ARRAY", "fields": null, "memberSchema": { "type": "STRUCT", "memberSchema": null, "fields": [
                { "name": "SKU", "schema": { "type": "STRING", "fields": null, "memberSchema": null } },
                { "name": "PRICE", "schema": { "type": "DECIMAL", "fields": null, "memberSchema": null,
                    "parameters": { "precision": 10, "scale": 2 } } },
            ] } }
        }))
        .unwrap();
        let column = field.column().unwrap();
        assert_eq!(column.data_type.to_string(), "array<row<`SKU` string, `PRICE` decimal(10, 2)>>");
    }

    #[test]
    fn answers_that_are_not_known_do_no_harm() {
        let answer = r#"[{"@type":"warning_entity","message":"x"},{"@type":"currentStatus","commandId":"c","commandStatus":
            {"status":"QUEUED","message":"m","queryId":null,"new":1},"warnings":[]}]"#;
        let entities: Vec<Entity> = serde_json::from_str(answer).unwrap();
        assert!(matches!(&entities[..], [Entity::Other, Entity::Command { .. }]));
    }
}
