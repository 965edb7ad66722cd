//! Our own schemas as a registry keeps them: which subjects there are, and registering, checking and comparing them.
//!
//! | | Avro | JSON Schema |
//! |---|---|---|
//! | topic strategy | one subject, a union of the three events in that version | one subject, `anyOf` the events in all versions up to that one |
//! | record strategies | a subject per event, its versions one after the other | a subject per event and version |
//!
//! The difference has a reason. Under BACKWARD a JSON Schema with an open content model may not grow a property, because
//! older data might hold anything under that name; a further branch is allowed, and a subject of its own always is.

use clap::ValueEnum;
use schema_registry_converter::schema_registry_common::SubjectNameStrategy;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::registry::client::{Fault, Method, RegistryClient, escape};
use crate::views::orders::contract::{Contract, NEWEST_VERSION, contracts};

/// How schemas are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Avro.
    Avro,
    /// JSON Schema.
    Json,
}

/// How a subject gets its name; Confluent's three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Strategy {
    /// `<topic>-value`: TopicNameStrategy.
    Topic,
    /// The record's name: RecordNameStrategy.
    Record,
    /// `<topic>-<record's name>`: TopicRecordNameStrategy.
    TopicRecord,
}

/// A subject with the schema that we would have in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// How it is written.
    pub format: Format,
    /// The schema's text.
    pub schema: String,
}

/// The subjects of our contract in a version.
pub fn subjects(format: Format, strategy: Strategy, version: u32, topic: &str) -> Vec<Subject> {
    let version = version.min(NEWEST_VERSION);
    if strategy == Strategy::Topic {
        let name = subject_name(SubjectNameStrategy::TopicNameStrategy(topic.to_owned(), false));
        let schema = if format == Format::Avro { avro_union(version) } else { json_union(version) };
        return vec![Subject { name, format, schema }];
    }
    contracts(version)
        .map(|contract| {
            let text = if format == Format::Avro { contract.avro } else { contract.json };
            let record = record_name(text, format);
            let strategy = match strategy {
                Strategy::TopicRecord => SubjectNameStrategy::TopicRecordNameStrategy(topic.to_owned(), record),
                _ => SubjectNameStrategy::RecordNameStrategy(record),
            };
            Subject { name: subject_name(strategy), format, schema: parse(text).to_string() }
        })
        .collect()
}

fn subject_name(strategy: SubjectNameStrategy) -> String {
    strategy.get_subject().expect("strategies by name always give one")
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("compiled-in schemas are JSON")
}

/// Full name of an Avro record, title of a JSON Schema: what serializers name subjects after.
fn record_name(text: &str, format: Format) -> String {
    let schema = parse(text);
    let part = |name: &str| schema[name].as_str().unwrap_or_default().to_owned();
    match format {
        Format::Avro => format!("{}.{}", part("namespace"), part("name")),
        Format::Json => part("title"),
    }
}

fn avro_union(version: u32) -> String {
    let records: Vec<Value> = contracts(version).map(|contract| parse(contract.avro)).collect();
    Value::from(records).to_string()
}

fn json_union(version: u32) -> String {
    let mut branches: Vec<Value> = Vec::new();
    for version in 1..=version {
        for Contract { json, .. } in contracts(version) {
            let schema = parse(json);
            if !branches.contains(&schema) {
                branches.push(schema);
            }
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:streamview:schema:order_event",
        "title": "OrderEvent",
        "description": "Any event of an order, in any version.",
        "anyOf": branches,
    })
    .to_string()
}

/// What a registry says of a schema that it might take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing stands in the subject yet.
    First,
    /// It may follow.
    Compatible,
    /// It may not, and why, in the registry's words.
    Incompatible(Vec<String>),
}

/// Sets the subject to BACKWARD and registers the schema; gives its id.
pub async fn register(client: &RegistryClient, subject: &Subject) -> Result<u32, Fault> {
    #[derive(Deserialize)]
    struct Answer {
        id: u32,
    }
    let name = escape(&subject.name);
    let backward = json!({ "compatibility": "BACKWARD" });
    let _: Value = client.send(Method::PUT, &format!("/config/{name}"), Some(&backward)).await?;
    let path = format!("/subjects/{name}/versions");
    let answer: Answer = client.send(Method::POST, &path, Some(&body(subject))).await?;
    Ok(answer.id)
}

/// Asks whether the schema may follow the latest one of its subject. Changes nothing.
pub async fn check(client: &RegistryClient, subject: &Subject) -> Result<Verdict, Fault> {
    #[derive(Deserialize)]
    struct Answer {
        is_compatible: bool,
        #[serde(default)]
        messages: Vec<String>,
    }
    let path = format!("/compatibility/subjects/{}/versions/latest?verbose=true", escape(&subject.name));
    match client.send::<Answer>(Method::POST, &path, Some(&body(subject))).await {
        Ok(Answer { is_compatible: true, .. }) => Ok(Verdict::Compatible),
        Ok(answer) => Ok(Verdict::Incompatible(answer.messages)),
        // Registries differ: some say so, some call it compatible.
        Err(Fault::NotFound(..)) => Ok(Verdict::First),
        Err(fault) => Err(fault),
    }
}

/// The latest schema of the subject, if there is one.
pub async fn latest(client: &RegistryClient, subject: &Subject) -> Result<Option<String>, Fault> {
    #[derive(Deserialize)]
    struct Answer {
        schema: String,
    }
    match client.get::<Answer>(&format!("/subjects/{}/versions/latest", escape(&subject.name))).await {
        Ok(answer) => Ok(Some(answer.schema)),
        Err(Fault::NotFound(..)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn body(subject: &Subject) -> Value {
    let schema_type = if subject.format == Format::Avro { "AVRO" } else { "JSON" };
    json!({ "schemaType": schema_type, "schema": subject.schema })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(format: Format, strategy: Strategy, version: u32) -> Vec<String> {
        subjects(format, strategy, version, "t").into_iter().map(|subject| subject.name).collect()
    }

    #[test]
    fn subjects_are_named_as_confluents_serializers_name_them() {
        assert_eq!(names(Format::Avro, Strategy::Topic, 2), ["t-value"]);
        assert_eq!(
            names(Format::Avro, Strategy::Record, 2),
            ["OrderCreated", "OrderItemAdded", "OrderStatusChanged"].map(|name| format!("streamview.orders.{name}"))
        );
        assert_eq!(
            names(Format::Json, Strategy::TopicRecord, 2),
            ["t-OrderCreatedV2", "t-OrderItemAddedV2", "t-OrderStatusChanged"]
        );
        assert_eq!(names(Format::Json, Strategy::Record, 1)[0], "OrderCreated");
    }

    #[test]
    fn the_schema_of_a_topic_holds_each_event_once() {
        let avro = parse(&subjects(Format::Avro, Strategy::Topic, 2, "t")[0].schema);
        assert_eq!(avro.as_array().unwrap().len(), 3);
        let json = parse(&subjects(Format::Json, Strategy::Topic, 2, "t")[0].schema);
        assert_eq!(json["anyOf"].as_array().unwrap().len(), 5);
    }
}
