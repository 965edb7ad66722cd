//! What a log holds beside records that count: control records, aborted and open transactions, holes.

use streamview::config::Config;
use streamview::platforms::kafka::bounded::read_topic;
use streamview_lab::servers::{KafkaOptions, KafkaServer};

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, life, oracle, stored};
use crate::support::servers;
use crate::support::transactions::Transactions;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Waits until every partition is consumed to its end.
async fn until_caught_up(instance: &Instance, ends: i64) {
    until("the lag is 0 at the end", PATIENCE, || async {
        let lags = instance.json("/ops/lags").await;
        let partitions = lags["partitions"].as_array().unwrap();
        let sum = |field: &str| partitions.iter().map(|p| p[field].as_i64().unwrap()).sum::<i64>();
        (sum("nextOffset") == ends && sum("highWatermark") == ends).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_aborted_transactions_in_ten_leave_no_trace_and_no_lag() {
    let world = World::new(2).await;
    let transactions = Transactions::new(&world, "writer");
    let instance = world.start().await;
    let mut committed = Vec::new();
    let mut ends = 0;
    for number in 0..20 {
        let events = life(&format!("o-{number}"), 4);
        transactions.open(events.iter().map(|event| event.record_on(number % 2)));
        // Each transaction ends with a control record; the last one on either partition is aborted.
        ends += 5;
        if [1, 4, 7, 11, 18, 19].contains(&number) {
            transactions.abort();
        } else {
            transactions.commit();
            committed.extend(events);
        }
    }

    until_caught_up(&instance, ends).await;
    assert_eq!(stored(&world).await, oracle(&committed));
    let count = committed.len() as i64;
    assert_eq!(world.conservation().await, [count, count, 0, 0, 0, 0, 0]);
    // The position behind the last control record is kept.
    instance.kill_hard();
    let instance = world.start().await;
    world.publish([created("last").record_on(0)]).await;
    instance.order_at("last", 1).await;
    until_caught_up(&instance, ends + 1).await;
    assert_eq!(world.consumed().await, count + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_back_its_partition_only_and_is_gone_once_its_writer_is_fenced() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let hanging = Transactions::new(&world, "hanging");
    hanging.open(life("never", 3).iter().map(|event| event.record_on(0)));
    let (behind, beside) = (life("behind", 3), life("beside", 3));
    world.publish(behind.iter().map(|event| event.record_on(0))).await;
    world.publish(beside.iter().map(|event| event.record_on(1))).await;

    instance.order_at("beside", 3).await;
    until_caught_up(&instance, 3).await; // up to the last stable offset: nothing of partition 0 can be read yet
    assert_eq!(world.consumed().await, 3);

    drop(hanging);
    Transactions::new(&world, "hanging");
    instance.order_at("behind", 3).await;
    until_caught_up(&instance, 10).await;
    assert_eq!(stored(&world).await, oracle(behind.iter().chain(&beside)));
    assert_eq!(world.conservation().await, [6, 6, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_that_compaction_left_are_passed() {
    let settings = [("log.cleaner.backoff.ms", "100")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let kafka = KafkaServer::start(KafkaOptions { settings: settings.into(), ..KafkaOptions::default() }).unwrap();
    let compacting = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("segment.ms", "1"),
        ("max.compaction.lag.ms", "1"),
    ];
    let world = World::on(&kafka.bootstrap(), &servers::shared().database, 1, &compacting).await;
    let orders: Vec<_> = (0..5).map(|n| created(&format!("o-{n}"))).collect();
    // Two of three copies of each will be removed.
    for _ in 0..3 {
        world.publish(orders.iter().map(TestEvent::record)).await;
    }
    let mut kafka_settings = Config::defaults().kafka;
    kafka_settings.bootstrap_servers = world.kafka.clone();
    until("the broker has compacted the topic", PATIENCE, || async {
        // The newest segment is never compacted: something has to follow.
        world.publish([created("follower").record()]).await;
        let (settings, topic) = (kafka_settings.clone(), world.topic.clone());
        let left = tokio::task::spawn_blocking(move || {
            let mut left = 0;
            read_topic(&settings, &topic, |record| left += usize::from(record.key != Some(b"follower"))).unwrap();
            left
        });
        (left.await.unwrap() == 5).then_some(())
    })
    .await;

    let instance = world.start_with(&[("STREAMVIEW_KAFKA__ALLOW_COMPACTED", "true")]).await;
    instance.order_at("follower", 1).await;

    let followers = [created("follower")];
    assert_eq!(stored(&world).await, oracle(orders.iter().chain(&followers)));
    let high = instance.json("/ops/lags").await["partitions"][0]["highWatermark"].as_i64().unwrap();
    until_caught_up(&instance, high).await;
    let [consumed, applied, duplicate, rest @ ..] = world.conservation().await;
    assert_eq!((applied, consumed - duplicate, rest), (6, 6, [0; 4]));
    assert!(consumed < high, "{consumed} of {high} offsets hold a record");
}
