//! Windows on a real Kafka: what is explained, written, kept over a stop, and set aside.

use rdkafka::Message;
use serde_json::{Value, json};
use streamview::manager::engines::{Changes, Engine, StopMode, Stopped};

use crate::bench::{PER_MINUTE, definition, deployment, engine, order, patient_engine, source, values};
use crate::support::servers;
use crate::support::world::{TestRecord, World, header, records};
use crate::support::{PATIENCE, until};

const MINUTE: i64 = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_explained_before_it_is_deployed() {
    let world = World::new(1).await;
    let engine = engine(&world.kafka);
    let select =
        streamview::manager::engines::Select { sql: PER_MINUTE.to_owned(), sources: vec![source(&world.topic)] };
    let explained = engine.explain(&select).await.unwrap();
    let columns: Vec<String> = explained.columns.iter().map(|c| format!("{} {}", c.name, c.data_type)).collect();
    assert_eq!(columns[..3], ["minute timestamp(3)", "customer string", "n bigint"]);
    assert!(columns[3].starts_with("total decimal("), "{columns:?}");
    assert_eq!((explained.changes, explained.only_adhoc), (Changes::Append, None));
    assert!(!explained.plan.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_written_once_and_go_on_after_a_stop() {
    let world = World::new(2).await;
    let definition = definition();
    let first = deployment(&definition, &world.topic, 1, None);
    let output = first.names.topic();
    world.create_topic(&output, 1, &[]).await;
    // Between two of its rows a partition may be silent for any time.
    let patient = patient_engine(&world.kafka);
    let orders = (0..20).map(|id| order(i32::from(id % 2 == 1), id, "a", 150, id * 1_000));
    world.publish(orders).await;
    let handle = patient.deploy(&first).await.unwrap();
    // One partition is over the end, and the other is not.
    world.publish([order(0, 20, "a", 100, MINUTE + 6_000)]).await;
    let Stopped::At(point) = patient.stop(&first, &handle, StopMode::KeepState).await.unwrap() else { panic!() };
    world.publish([order(1, 21, "a", 1, 59_999), order(1, 22, "b", 1, MINUTE + 6_000)]).await;
    let second = deployment(&definition, &world.topic, 2, Some(point));
    let handle = patient.deploy(&second).await.unwrap();
    let written = until("the first minute is written", PATIENCE * 2, || async {
        Some(values(&world, &output)).filter(|values| !values.is_empty())
    })
    .await;
    assert_eq!(written[0], json!({"minute": "1970-01-01T00:00:00.000Z", "customer": "a", "n": 21, "total": 30.01}));

    // What comes too late goes aside; what cannot be read, too.
    let bad = TestRecord { payload: Some(b"{\"id\":1}{\"id\":2}".to_vec()), partition: Some(0), ..Default::default() };
    world.publish([order(0, 23, "a", 1, 1_000), bad]).await;
    for (aside, words) in [(format!("{output}.late"), "late"), (format!("{output}.dlq"), "trailing characters")] {
        let letter = until(&format!("one stands in {aside}"), PATIENCE * 2, || async {
            let is_there = streamview_is_there(&world, &aside).await;
            if is_there { records(&world.kafka, &aside).pop() } else { None }
        })
        .await;
        assert!(header(&letter, "x-dlq-error").unwrap().contains(words));
        assert_eq!(header(&letter, "x-original-topic").unwrap(), world.topic);
    }
    // Nothing more comes: what is open closes by the clock, and nothing is written twice.
    let Stopped::At(point) = patient.stop(&second, &handle, StopMode::KeepState).await.unwrap() else { panic!() };
    let third = deployment(&definition, &world.topic, 3, Some(point));
    let engine = engine(&world.kafka);
    let handle = engine.deploy(&third).await.unwrap();
    let written = until("the second minute is written", PATIENCE * 2, || async {
        Some(values(&world, &output)).filter(|values| values.len() >= 3)
    })
    .await;
    let counts: Vec<&Value> = written.iter().map(|value| &value["n"]).collect();
    assert_eq!(counts, [21, 1, 1]);
    engine.remove(&handle, &[]).await.unwrap();
}

/// Whether the topic was made.
pub async fn streamview_is_there(world: &World, topic: &str) -> bool {
    use streamview::manager::ports::Kafka;
    let mut config = streamview::config::Config::defaults();
    config.kafka.bootstrap_servers.clone_from(&world.kafka);
    let topics = streamview::platforms::kafka::topics::Topics::new(&config.kafka).topics().await.unwrap();
    topics.iter().any(|found| found.name == topic)
}

/// The client panics at such a name where it is asked for headers.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_whose_name_is_not_text_ends_no_query() {
    let world = World::new(1).await;
    let (engine, definition) = (engine(&world.kafka), definition());
    let mut deployment = deployment(&definition, &world.topic, 1, None);
    "SELECT id, _headers FROM orders".clone_into(&mut deployment.select.sql);
    world.create_topic(&deployment.names.topic(), 1, &[]).await;
    let handle = engine.deploy(&deployment).await.unwrap();
    world.publish_odd(&world.topic, &order(0, 1, "a", 100, 0)).await;
    let rows = until("the row is written", PATIENCE, || async {
        let rows = values(&world, &handle.output_topic);
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(rows.await, [json!({"id": 1, "_headers": {"\u{fffd}": "odd"}})]);
    engine.stop(&deployment, &handle, StopMode::Final).await.unwrap();
}

/// 1,000,000 bytes are what the client sends by itself, 1,048,588 what a topic takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_record_is_set_aside_without_its_value_and_a_row_that_is_too_large_ends_its_query_by_name() {
    let servers = servers::shared();
    let world = World::on(&servers.kafka, &servers.database, 1, &[("max.message.bytes", "20000000")]).await;
    let (engine, definition) = (engine(&world.kafka), definition());
    let mut deployment = deployment(&definition, &world.topic, 1, None);
    "SELECT id, customer FROM orders".clone_into(&mut deployment.select.sql);
    let output = deployment.names.topic();
    world.create_topic(&output, 1, &[]).await;
    let handle = engine.deploy(&deployment).await.unwrap();
    let broken = TestRecord { payload: Some(vec![b'x'; 2_000_000]), partition: Some(0), ..TestRecord::default() };
    let customer = "c".repeat(1_010_000);
    world.publish([broken, order(0, 1, &customer, 100, 0)]).await;
    let rows = until("the row is written", PATIENCE, || async {
        Some(values(&world, &output)).filter(|rows| !rows.is_empty())
    });
    assert_eq!(rows.await, [json!({"id": 1, "customer": customer})]);
    let letter = records(&world.kafka, &format!("{output}.dlq")).pop().unwrap();
    assert!(letter.payload().is_none());
    assert_eq!(header(&letter, "x-original-offset").unwrap(), "0");
    let omitted = header(&letter, "x-dlq-payload").unwrap();
    assert_eq!(omitted, "value omitted; the value has 2000000 bytes");

    world.publish([order(0, 2, &"c".repeat(1_100_000), 100, 0)]).await;
    let why =
        until("the query ends", PATIENCE, || async { engine.details(&handle.job_id).await.unwrap().failure }).await;
    let of = format!("{}:0:2 is larger than topic {output} takes", world.topic);
    assert!(why.contains(&of), "{why}");
    engine.remove(&handle, &[]).await.unwrap();
}
