//! Streams joined with compacted topics on a real Kafka.

use serde_json::json;
use streamview::config::Config;
use streamview::manager::catalog::{Column, KeyFormat, Source, Table};
use streamview::manager::engines::{Deployment, Engine, Select, StopMode, Stopped};
use streamview::streams::engines::embedded;

use crate::bench::{definition, deployment, order, source, values};
use crate::support::world::{TestRecord, World, header, records};
use crate::support::{PATIENCE, until};

const JOIN: &str = "SELECT o.id, c.city FROM orders o LEFT JOIN customers c ON o.customer = c.customer";

/// A record of the table: its key as an object, as streams write theirs.
fn customer(name: &str, city: Option<&str>) -> TestRecord {
    let key = Some(format!(r#"{{"customer":"{name}"}}"#).into_bytes());
    let payload = city.map(|city| format!(r#"{{"city":"{city}"}}"#).into_bytes());
    TestRecord { key, payload, ..TestRecord::default() }
}

fn joined(topic: &str, table: &str) -> Select {
    let column = |name: &str| Column { name: name.to_owned(), data_type: "string".parse().unwrap(), nullable: true };
    let customers = Source {
        name: "customers".to_owned(),
        topic: table.to_owned(),
        columns: ["customer", "city"].map(column).to_vec(),
        event_time: None,
        table: Some(Table { key: vec!["customer".to_owned()], key_format: KeyFormat::Json }),
        ..source(topic)
    };
    Select { sql: JOIN.to_owned(), sources: vec![source(topic), customers] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_joined_with_a_compacted_topic_that_changes() {
    let world = World::new(2).await;
    let definition = definition();
    let table = format!("{}.customers", world.topic);
    let select = joined(&world.topic, &table);
    let first = Deployment { select: select.clone(), ..deployment(&definition, &world.topic, 1, None) };
    let output = first.names.topic();
    world.create_topic(&table, 3, &[("cleanup.policy", "compact")]).await;
    world.create_topic(&output, 1, &[]).await;
    let mut config = Config::defaults();
    config.kafka.bootstrap_servers.clone_from(&world.kafka);
    (config.embedded.commit_ms, config.embedded.table_refresh_ms) = (20, 100);
    let engine = embedded::engine(&config, None);

    world.publish_to(&table, [customer("a", Some("Ulm")), customer("b", Some("Bonn"))]).await;
    world.publish_to(&table, [customer("a", Some("Berlin")), customer("b", None)]).await;
    world.publish([order(0, 1, "a", 1, 0), order(0, 2, "b", 1, 0)]).await;
    let handle = engine.deploy(&first).await.unwrap();
    let written = async |rows: usize| {
        until(&format!("{rows} rows are written"), PATIENCE * 2, || async {
            Some(values(&world, &output)).filter(|values| values.len() >= rows)
        })
        .await
    };
    assert_eq!(written(2).await, [json!({"id": 1, "city": "Berlin"}), json!({"id": 2, "city": null})]);

    world.publish_to(&table, [customer("a", None), customer("b", Some("Köln"))]).await;
    until("the table is refreshed", PATIENCE, || async {
        let nodes = engine.details(&handle.job_id).await.unwrap().topology.nodes;
        world.publish([order(0, 3, "b", 1, 0)]).await;
        let is_met = values(&world, &output).last().is_some_and(|last| last["city"] == "Köln");
        (is_met && nodes.iter().any(|node| node.label.contains("1 rows"))).then_some(())
    })
    .await;
    let record = records(&world.kafka, &output).swap_remove(0);
    assert_eq!(header(&record, "streamview-origin").unwrap(), format!("{}:0:0", world.topic));

    let Stopped::At(point) = engine.stop(&first, &handle, StopMode::KeepState).await.unwrap() else { panic!() };
    world.publish_to(&table, [customer("a", Some("Mainz"))]).await;
    world.publish([order(1, 9, "a", 1, 0)]).await;
    let second = Deployment { select, ..deployment(&definition, &world.topic, 2, Some(point)) };
    let handle = engine.deploy(&second).await.unwrap();
    until("the row of the second run is written", PATIENCE * 2, || async {
        values(&world, &output).contains(&json!({"id": 9, "city": "Mainz"})).then_some(())
    })
    .await;
    engine.remove(&handle, &[]).await.unwrap();
}
