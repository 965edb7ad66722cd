//! Sources that are written in transactions, as every output of this engine is: what ends a transaction stands in the log like a
//! record, and nobody sees it.

use serde_json::{Value, json};
use streamview::config::Config;
use streamview::embedded::engine::Counts;
use streamview::manager::engines::{Deployment, Engine, Select, StopMode, Stopped};
use streamview::manager::ports::Kafka;
use streamview::platforms::kafka::topics::Topics;

use crate::bench::{definition, deployment, engine, engine_with, order, source, values};
use crate::support::transactions::Transactions;
use crate::support::world::World;
use crate::support::{PATIENCE, until};
use crate::windows::streamview_is_there;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_stands_behind_the_transactions_that_it_has_read_and_outlives_their_retention() {
    let world = World::new(1).await;
    let (writer, definition) = (Transactions::new(&world, "writer"), definition());
    let select = Select { sql: "SELECT id, customer FROM orders".to_owned(), sources: vec![source(&world.topic)] };
    let first = Deployment { select: select.clone(), ..deployment(&definition, &world.topic, 1, None) };
    let output = first.names.topic();
    world.create_topic(&output, 1, &[]).await;
    let engine = engine(&world.kafka);
    let handle = engine.deploy(&first).await.unwrap();
    let written = async |rows: usize| {
        until(&format!("{rows} rows are written"), PATIENCE * 2, || async {
            Some(values(&world, &output)).filter(|values| values.len() >= rows)
        })
        .await
    };

    writer.open([order(0, 1, "committed", 1, 0)]);
    writer.commit();
    assert_eq!(written(1).await, [json!({"id": 1, "customer": "committed"})]);
    writer.open([order(0, 2, "aborted", 1, 0)]);
    writer.abort();
    let group = engine.details(&handle.job_id).await.unwrap().group.unwrap();
    let mut config = Config::defaults();
    config.kafka.bootstrap_servers.clone_from(&world.kafka);
    let topics = Topics::new(&config.kafka);
    until("nothing is behind", PATIENCE, || async {
        (topics.group_lag(&group, &world.topic).await.unwrap() == Some(0)).then_some(())
    })
    .await;

    // All of it goes while the stream is stopped; nothing of it was still to be read.
    let Stopped::At(point) = engine.stop(&first, &handle, StopMode::KeepState).await.unwrap() else { panic!() };
    world.truncate(0, 4).await;
    let second = Deployment { select, ..deployment(&definition, &world.topic, 2, Some(point)) };
    let handle = engine.deploy(&second).await.unwrap();
    writer.open([order(0, 3, "after", 1, 0)]);
    writer.commit();
    let rows = [json!({"id": 1, "customer": "committed"}), json!({"id": 3, "customer": "after"})];
    assert_eq!(written(2).await, rows);
    engine.remove(&handle, &[]).await.unwrap();
}

/// To a reader of committed records a partition ends where the first open transaction begins: that is no silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_waits_for_the_rows_of_an_open_transaction() {
    let (world, other) = (World::new(1).await, World::new(1).await);
    let (writer, engine) = (Transactions::new(&world, "writer"), engine_with(&world.kafka, 1_000));
    let first = deployment(&definition(), &world.topic, 1, None);
    let second = deployment(&definition(), &other.topic, 1, None);
    let (output, beside) = (first.names.topic(), second.names.topic());
    for topic in [&output, &beside] {
        world.create_topic(topic, 1, &[]).await;
    }
    writer.open([order(0, 1, "a", 100, 1_000)]);
    writer.commit();
    writer.open([order(0, 2, "a", 150, 2_000)]);
    let handle = engine.deploy(&first).await.unwrap();
    until("the committed row is read", PATIENCE, || async {
        (Counts::get(&engine.running()[0].counts().read) == 1).then_some(())
    })
    .await;

    // The topic of another query, which is silent for a shorter time, is silent for long enough.
    other.publish([order(0, 3, "b", 100, 1_000)]).await;
    let handle_beside = engine.deploy(&second).await.unwrap();
    written(&world, &beside).await;
    assert!(values(&world, &output).is_empty(), "{:?}", values(&world, &output));

    writer.commit();
    let whole = json!({"minute": "1970-01-01T00:00:00.000Z", "customer": "a", "n": 2, "total": 2.5});
    assert_eq!(written(&world, &output).await, [whole]);
    assert!(!streamview_is_there(&world, &format!("{output}.late")).await);
    for handle in [handle, handle_beside] {
        engine.remove(&handle, &[]).await.unwrap();
    }
}

/// What is in a topic, once something is.
async fn written(world: &World, topic: &str) -> Vec<Value> {
    until(&format!("something is written to {topic}"), PATIENCE * 2, || async {
        Some(values(world, topic)).filter(|values| !values.is_empty())
    })
    .await
}
