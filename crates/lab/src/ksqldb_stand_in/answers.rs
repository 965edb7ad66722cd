//! The entities of answers: lists, descriptions, the outcome of commands.

use serde_json::{Value, json};

use super::catalog::{Catalog, Query};
use super::cluster::{Cluster, Commanded};
use super::flow::{Plan, Source};
use super::refused::Refused;
use super::statement::{Column, Kind, Statement};

/// A command's outcome.
pub fn commanded(commanded: &Commanded) -> Value {
    if commanded.warned {
        let (text, message) = (&commanded.text, &commanded.status.message);
        return json!({ "@type": "warning_entity", "statementText": text, "message": message });
    }
    json!({
        "@type": "currentStatus",
        "statementText": commanded.text,
        "commandId": commanded.id,
        "commandStatus": commanded.status,
        "commandSequenceNumber": commanded.sequence,
    })
}

/// What a statement shows that changes nothing.
///
/// # Errors
/// Why it cannot be shown.
pub fn shown(cluster: &Cluster, catalog: &Catalog, statement: &Statement, text: &str) -> Result<Value, Refused> {
    let entity = match statement {
        Statement::Show("QUERIES", true) => {
            let described: Vec<Value> =
                catalog.queries.values().map(|query| query_description(cluster, query)).collect();
            json!({ "@type": "query_descriptions", "queryDescriptions": described })
        }
        Statement::Show("QUERIES", false) => json!({ "@type": "queries", "queries": queries(cluster, catalog) }),
        Statement::Show("TOPICS", _) => {
            let topics = cluster.brokers.topics().map_err(|error| hidden(&error, text))?;
            let own = |name: &str| !name.starts_with("__") && !name.starts_with("_confluent");
            let topics = topics.iter().filter(|(name, _)| own(name));
            let list: Vec<Value> = topics
                .map(|(name, partitions)| json!({ "name": name, "replicaInfo": vec![1; *partitions as usize] }))
                .collect();
            json!({ "@type": "kafka_topics", "topics": list })
        }
        Statement::Show(what, _) => {
            let kind = if *what == "STREAMS" { Kind::Stream } else { Kind::Table };
            let list: Vec<Value> = catalog.sources.values().filter(|source| source.kind == kind).map(listed).collect();
            let word = what.to_lowercase();
            json!({ "@type": word, word: list })
        }
        Statement::Describe(name, extended) => {
            let missing = format!("Could not find STREAM/TABLE '{name}' in the Metastore");
            let source = catalog.sources.get(name).ok_or_else(|| Refused::statement(missing, text))?;
            json!({ "@type": "sourceDescription", "sourceDescription": described(cluster, catalog, source, *extended) })
        }
        Statement::DescribeAll(kind) => {
            let all = catalog.sources.values().filter(|source| source.kind == *kind);
            let list: Vec<Value> = all.map(|source| described(cluster, catalog, source, true)).collect();
            json!({ "@type": "source_descriptions", "sourceDescriptions": list })
        }
        Statement::ExplainQuery(id) => {
            let query = catalog.queries.values().find(|query| query.id.eq_ignore_ascii_case(id));
            let missing = format!("Query with id:{id} does not exist, use SHOW QUERIES.");
            let query = query.ok_or_else(|| Refused::statement(missing, text))?;
            json!({ "@type": "queryDescription", "queryDescription": query_description(cluster, query) })
        }
        Statement::Explain(inner) => {
            let plan = match &**inner {
                Statement::Select(select) => catalog.plan(select, text)?,
                Statement::Create(create) => {
                    let select = create.query.as_ref();
                    let none = "EXPLAIN needs a query".to_owned();
                    let select = select.ok_or_else(|| Refused::statement(none, text))?;
                    catalog.plan_of_create(create, select, text)?
                }
                _ => return Err(Refused::statement("EXPLAIN needs a query", text)),
            };
            let inner_text = text.get("EXPLAIN ".len()..).unwrap_or_default();
            let mut description = plan_description(&plan, &format!("transient_{}_1", plan.source.name), inner_text);
            description["queryType"] = "PUSH".into();
            json!({ "@type": "queryDescription", "queryDescription": description })
        }
        _ => return Err(Refused::statement("not a statement for this endpoint", text)),
    };
    Ok(entity)
}

/// A 500 of the server's own trouble.
pub fn hidden(error: &anyhow::Error, text: &str) -> Refused {
    Refused::of_statement(500, 50000, format!("{error:#}"), text)
}

fn queries(cluster: &Cluster, catalog: &Catalog) -> Vec<Value> {
    let mut list: Vec<Value> =
        catalog.queries.values().map(|query| listed_query(cluster, &query.id, &query.text, Some(query))).collect();
    let pushes = cluster.pushes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    list.extend(pushes.iter().map(|(id, push)| listed_query(cluster, id, &push.text, None)));
    list
}

fn listed_query(cluster: &Cluster, id: &str, text: &str, query: Option<&Query>) -> Value {
    let failed = query.is_some() && cluster.failure_of(id).is_some();
    let state = if failed { "ERROR" } else { "RUNNING" };
    let counted = if !failed && query.is_some_and(|query| query.paused) { "PAUSED" } else { state };
    let mut counts = json!({ counted: 1 });
    if cluster.switches().unresponsive {
        counts["UNRESPONSIVE"] = 1.into();
    }
    json!({
        "queryString": text,
        "sinks": query.map(|query| &query.sink).into_iter().collect::<Vec<_>>(),
        "sinkKafkaTopics": query.map(|query| &query.topic).into_iter().collect::<Vec<_>>(),
        "id": id,
        "statusCount": counts,
        "queryType": if query.is_some() { "PERSISTENT" } else { "PUSH" },
        "state": state,
    })
}

fn listed(source: &Source) -> Value {
    json!({
        "type": source.kind.upper(),
        "name": source.name,
        "topic": source.topic,
        "keyFormat": "KAFKA",
        "valueFormat": source.format,
        "isWindowed": false,
    })
}

fn fields(columns: &[Column], marks_keys: bool) -> Vec<Value> {
    let field = |column: &Column| {
        let mut field = json!({ "name": column.name, "schema": column.of.described() });
        if column.key && marks_keys {
            field["type"] = "KEY".into();
        }
        field
    };
    columns.iter().map(field).collect()
}

fn described(cluster: &Cluster, catalog: &Catalog, source: &Source, extended: bool) -> Value {
    let using = |reads: bool| -> Vec<Value> {
        let all = catalog.queries.values();
        all.filter(|query| if reads { query.plan.source.name == source.name } else { query.sink == source.name })
            .map(|query| listed_query(cluster, &query.id, &query.text, Some(query)))
            .collect()
    };
    let readers = catalog.queries.values().filter(|query| query.plan.source.name == source.name);
    json!({
        "name": source.name,
        "windowType": null,
        "readQueries": using(true),
        "writeQueries": using(false),
        "fields": fields(&source.columns, true),
        "type": source.kind.upper(),
        "timestamp": "",
        "statistics": "",
        "errorStats": "",
        "extended": extended,
        "keyFormat": "KAFKA",
        "valueFormat": source.format,
        "topic": source.topic,
        "partitions": 0,
        "replication": 0,
        "statement": source.statement,
        "queryOffsetSummaries": [],
        "sourceConstraints": readers.map(|query| query.sink.clone()).collect::<Vec<_>>(),
    })
}

fn plan_description(plan: &Plan, id: &str, text: &str) -> Value {
    let (topic, aggregates) = (&plan.source.topic, plan.aggregates());
    let step = if aggregates { "KSTREAM-AGGREGATE-0000000001" } else { "KSTREAM-TRANSFORMVALUES-0000000001" };
    let topology = format!(
        "Topologies:\n   Sub-topology: 0\n    Source: KSTREAM-SOURCE-0000000000 (topics: [{topic}])\n      --> {step}\n    \
         Processor: {step} (stores: [])\n      --> Project\n      <-- KSTREAM-SOURCE-0000000000\n    Processor: Project (stores: \
         [])\n      --> none\n      <-- {step}\n\n"
    );
    let plan_text =
        if aggregates { " > [ PROJECT ] | ...\n\t\t > [ AGGREGATE ] | ..." } else { " > [ PROJECT ] | ..." };
    json!({
        "id": id,
        "statementText": text,
        "windowType": null,
        "fields": fields(&plan.columns, false),
        "sources": [plan.source.name],
        "sinks": [],
        "topology": topology,
        "executionPlan": plan_text,
        "overriddenProperties": {},
        "ksqlHostQueryStatus": {},
        "queryErrors": [],
        "tasksMetadata": [],
        "state": null,
    })
}

fn query_description(cluster: &Cluster, query: &Query) -> Value {
    let mut description = plan_description(&query.plan, &query.id, &query.text);
    let failure = cluster.failure_of(&query.id);
    let state = if failure.is_some() { "ERROR" } else { "RUNNING" };
    description["sinks"] = json!([query.sink]);
    description["overriddenProperties"] = query.properties.clone().into();
    description["ksqlHostQueryStatus"] = json!({ "stand-in:8088": state });
    description["queryType"] = "PERSISTENT".into();
    let errors = failure.map(|why| json!({ "timestamp": 1_767_225_600_000_u64, "errorMessage": why, "type": "USER" }));
    description["queryErrors"] = errors.into_iter().collect();
    description["consumerGroupId"] = cluster.group_of(&query.id).into();
    description["state"] = state.into();
    description
}
