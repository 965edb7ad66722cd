//! The order events' schemas as subjects of a registry.
//!
//! | | Avro | JSON Schema |
//! |---|---|---|
//! | topic strategy | one subject, a union of the three events in that version | one subject, `anyOf` the events in all versions up to that one |
//! | record strategies | a subject per event, its versions one after the other | a subject per event and version |
//!
//! The difference has a reason. Under BACKWARD a JSON Schema with an open content model may not grow a property, because
//! older data might hold anything under that name; a further branch is allowed, and a subject of its own always is.

use serde_json::{Value, json};

use crate::schemas::subjects::{Format, Strategy, Subject};
use crate::views::orders::contract::{Contract, NEWEST_VERSION, contracts};

/// The subjects of our contract in a version.
pub fn subjects(format: Format, strategy: Strategy, version: u32, topic: &str) -> Vec<Subject> {
    let version = version.min(NEWEST_VERSION);
    if strategy == Strategy::Topic {
        let name = strategy.subject(topic, String::new());
        let schema = if format == Format::Avro { avro_union(version) } else { json_union(version) };
        return vec![Subject { name, format, schema }];
    }
    contracts(version)
        .map(|contract| {
            let text = if format == Format::Avro { contract.avro } else { contract.json };
            let record = record_name(text, format);
            Subject { name: strategy.subject(topic, record), format, schema: parse(text).to_string() }
        })
        .collect()
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
