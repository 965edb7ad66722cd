//! Schemas of ours as a registry keeps them: how their subjects are named, and registering, checking and comparing them.
//! Which subjects there are is a view's ([`crate::views::orders::subjects`]).

use clap::ValueEnum;
use schema_registry_converter::schema_registry_common::SubjectNameStrategy;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::schemas::client::{Fault, Method, RegistryClient, escape};

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

impl Strategy {
    /// The name of the subject for values of `topic` whose schema describes `record` (its full name).
    pub fn subject(self, topic: &str, record: String) -> String {
        let strategy = match self {
            Strategy::Topic => SubjectNameStrategy::TopicNameStrategy(topic.to_owned(), false),
            Strategy::Record => SubjectNameStrategy::RecordNameStrategy(record),
            Strategy::TopicRecord => SubjectNameStrategy::TopicRecordNameStrategy(topic.to_owned(), record),
        };
        strategy.get_subject().expect("strategies by name always give one")
    }
}

/// What a registry says of a schema that it might take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Succession {
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
pub async fn check(client: &RegistryClient, subject: &Subject) -> Result<Succession, Fault> {
    #[derive(Deserialize)]
    struct Answer {
        is_compatible: bool,
        #[serde(default)]
        messages: Vec<String>,
    }
    let path = format!("/compatibility/subjects/{}/versions/latest?verbose=true", escape(&subject.name));
    match client.send::<Answer>(Method::POST, &path, Some(&body(subject))).await {
        Ok(Answer { is_compatible: true, .. }) => Ok(Succession::Compatible),
        Ok(answer) => Ok(Succession::Incompatible(answer.messages)),
        // Registries differ: some say so, some call it compatible.
        Err(Fault::NotFound(..)) => Ok(Succession::First),
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
