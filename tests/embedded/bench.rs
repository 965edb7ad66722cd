//! The engine on the bench of the conformance suite, and sources, deployments and events for the other tests.

use std::sync::Arc;

use serde_json::Value;
use streamview::config::Config;
use streamview::embedded::engine::Embedded;
use streamview::manager::catalog::{Column, EventTime, Format, Source};
use streamview::manager::engines::{Changes, Deployment, EngineKind, RestorePoint, Select};
use streamview::manager::names::Names;
use streamview::streams::engines::embedded;

use crate::support::bench::Bench;
use crate::support::world::{TestRecord, World, records};

/// What a window holds is written once it cannot change any more.
pub const PER_MINUTE: &str = "SELECT tumble(ts, INTERVAL '1 minute') AS minute, customer, COUNT(*) AS n, \
                              SUM(amount) AS total FROM orders GROUP BY tumble(ts, INTERVAL '1 minute'), customer";

/// The engine for this Kafka. Partitions are idle soon, and rows are committed at once.
pub fn engine(kafka: &str) -> Embedded {
    engine_with(kafka, 3_000)
}

/// The same, where no partition is ever idle: only rows close windows.
pub fn patient_engine(kafka: &str) -> Embedded {
    engine_with(kafka, 86_400_000)
}

/// The same, where a partition is idle after so many milliseconds.
pub fn engine_with(kafka: &str, idle_ms: u64) -> Embedded {
    let mut config = Config::defaults();
    config.kafka.bootstrap_servers = kafka.to_owned();
    config.embedded.idle_ms = idle_ms;
    config.embedded.commit_ms = 20;
    embedded::engine(&config, None)
}

pub async fn bench(world: &World) -> Bench {
    let engine = engine(&world.kafka);
    let looks = engine.clone();
    Bench {
        engine: Arc::new(engine),
        declare: Box::new(|_| Box::pin(async {})),
        is_over: Box::new(move |id| {
            let is_over = !looks.is_looking(&id);
            Box::pin(async move { is_over })
        }),
        // What cannot be read is passed over; a topic that is gone cannot be.
        spoil: |world| Box::pin(world.delete_topic(&world.topic)),
        unknown_column: ("SELECT order_id,\n       nocol FROM orders", 2, 8),
    }
}

/// The world's topic as `orders(id, customer, amount, ts)`, by `ts` with five seconds of lateness.
pub fn source(topic: &str) -> Source {
    let column =
        |(name, of): (&str, &str)| Column { name: name.to_owned(), data_type: of.parse().unwrap(), nullable: true };
    let columns = [("id", "bigint"), ("customer", "string"), ("amount", "decimal(20, 2)"), ("ts", "timestamp(3)")];
    Source {
        name: "orders".to_owned(),
        topic: topic.to_owned(),
        format: Format::Json,
        columns: columns.map(column).to_vec(),
        event_time: Some(EventTime { column: "ts".to_owned(), delay_ms: 5_000 }),
        table: None,
    }
}

/// The n-th attempt at a definition; each but the first goes on from where the first began to keep its state.
pub fn deployment(definition: &str, topic: &str, attempt: i32, restore: Option<RestorePoint>) -> Deployment {
    Deployment {
        definition: definition.to_owned(),
        names: Names::of(definition, "per minute"),
        revision: 1,
        attempt,
        select: Select { sql: PER_MINUTE.to_owned(), sources: vec![source(topic)] },
        changes: Changes::Append,
        replaces: false,
        restore,
    }
}

/// Where the first attempt keeps its state.
pub fn kept(definition: &str) -> Option<RestorePoint> {
    EngineKind::Embedded.keeps_at(definition, (1, 1), None)
}

pub fn definition() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// An order of a customer at a time, in a partition.
pub fn order(partition: i32, id: i64, customer: &str, cents: i64, ts: i64) -> TestRecord {
    let (whole, rest) = (cents / 100, cents % 100);
    let value = format!(r#"{{"id":{id},"customer":"{customer}","amount":{whole}.{rest:02},"ts":{ts}}}"#);
    TestRecord { payload: Some(value.into_bytes()), partition: Some(partition), ..TestRecord::default() }
}

/// The committed values of a topic with one partition.
pub fn values(world: &World, topic: &str) -> Vec<Value> {
    let records = records(&world.kafka, topic);
    let payloads = records.iter().filter_map(|message| rdkafka::Message::payload(message));
    payloads.map(|payload| serde_json::from_slice(payload).unwrap()).collect()
}
