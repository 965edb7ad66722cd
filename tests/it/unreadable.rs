//! Batches that cannot be read: their partition stops by name, the others go on, and an operator decides.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use reqwest::Response;
use serde_json::{Value, json};
use streamview_lab::servers::{KafkaOptions, KafkaServer};
use tempfile::TempDir;

use crate::support::instance::Instance;
use crate::support::orders::{created, life, oracle, stored};
use crate::support::segment::Segment;
use crate::support::servers;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// A Kafka whose files can be reached.
struct OpenKafka {
    // Dropped before its folder.
    server: KafkaServer,
    folder: TempDir,
}

fn open_kafka(settings: &[(&str, &str)]) -> OpenKafka {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = KafkaOptions { data_dir: Some(folder.path().to_owned()), settings, ..KafkaOptions::default() };
    OpenKafka { server: KafkaServer::start(options).unwrap(), folder }
}

impl OpenKafka {
    /// Changes segments while the broker is stopped.
    fn damage(&mut self, topic: &str, damage: impl FnOnce(&mut dyn FnMut(i32) -> Segment)) {
        self.server.stop().unwrap();
        let folder = self.folder.path().to_owned();
        damage(&mut |partition| Segment::read(&folder, topic, partition));
        self.server.restart().unwrap();
    }
}

/// Waits until the partition is paused with this code; gives what `/ops/consumer` says.
pub async fn until_paused(instance: &Instance, partition: i64, code: &str) -> String {
    until(&format!("partition {partition} pauses with {code}"), PATIENCE, || async {
        let consumer = instance.json("/ops/consumer").await;
        let partitions = consumer["views"][0]["partitions"].as_array().unwrap().clone();
        let paused = partitions.into_iter().find(|p| p["partition"] == partition && p["pausedCode"] == code)?;
        Some(paused["paused"].as_str().unwrap().to_owned())
    })
    .await
}

pub async fn skip_to(instance: &Instance, partition: i64, body: Value) -> Response {
    let url = instance.url(&format!("/ops/partitions/{partition}/skip-to"));
    instance.http.post(url).header("Idempotency-Key", format!("key-{partition}")).json(&body).send().await.unwrap()
}

/// Expects a refusal.
pub async fn refused(response: Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status().as_u16(), status);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], code, "{body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_batches_stop_their_partitions_by_name_until_an_operator_skips_them() {
    let mut kafka = open_kafka(&[]);
    let gzip = [("compression.type", "gzip")];
    let world = World::on(&kafka.server.bootstrap(), &servers::shared().database, 3, &gzip).await;
    let orders: Vec<Vec<_>> =
        (0..3).map(|partition| (0..5).map(|n| created(&format!("o-{partition}-{n}"))).collect()).collect();
    // Each in a batch of its own.
    for (partition, event) in
        (0..).zip(&orders).flat_map(|(partition, events)| events.iter().map(move |e| (partition, e)))
    {
        world.publish([event.record_on(partition)]).await;
    }
    let mut whole = Vec::new();
    kafka.damage(&world.topic, |segment| {
        let mut rotten = segment(0);
        assert_eq!(rotten.codec(2), 1, "the batches are compressed");
        whole.push(rotten.clone());
        rotten.rot(2);
        rotten.write();
        let mut garbled = segment(1);
        whole.push(garbled.clone());
        garbled.garble(2);
        garbled.write();
    });

    let instance = world.start().await;
    let rotten = until_paused(&instance, 0, "unreadable_batch").await;
    let garbled = until_paused(&instance, 1, "unreadable_batch").await;

    for (partition, detail) in [(0, &rotten), (1, &garbled)] {
        assert!(detail.contains(&format!("partition {partition}, the batch at offset 2")), "{detail}");
        assert!(detail.contains(&format!("/ops/partitions/{partition}/skip-to")), "{detail}");
    }
    assert!(rotten.contains("CRC32C") && garbled.contains("Decompression"), "{rotten} {garbled}");
    // Nothing behind the batches, everything else.
    world.until_consumed(9).await;
    let readable = [&orders[0][..2], &orders[1][..2], &orders[2]].concat();
    assert_eq!(stored(&world).await, oracle(&readable));
    until_told_everywhere(&instance, &[0, 1]).await;
    // A restart does not wash it away, and another partition goes on.
    instance.kill_hard();
    let instance = world.start().await;
    until_paused(&instance, 0, "unreadable_batch").await;
    until_paused(&instance, 1, "unreadable_batch").await;
    world.publish(life("more", 4).iter().map(|event| event.record_on(2))).await;
    instance.order_at("more", 4).await;
    assert_eq!(world.consumed().await, 13);

    skip_both(&world, &instance).await;

    let expected = [&orders[0][..2], &orders[0][3..], &orders[1][..2], &orders[1][3..], &orders[2], &life("more", 4)];
    let expected = oracle(&expected.concat());
    until("the others are applied, without a restart", PATIENCE, || async {
        (stored(&world).await == expected).then_some(())
    })
    .await;
    instance.until_metric("streamview_partitions_paused", &[], 0.0).await;
    assert_eq!(world.conservation().await, [17, 17, 0, 0, 0, 0, 0]);

    // Another build steps over the batch that is still broken, and drops the record that can be read again.
    instance.stop().await;
    kafka.damage(&world.topic, |_| whole[0].write());
    start_over(&world).await;
    let instance = world.start().await;
    until("everything is applied again", PATIENCE, || async { (stored(&world).await == expected).then_some(()) }).await;
    assert_eq!(world.conservation().await, [17, 17, 0, 0, 0, 0, 0]);
    let ends = world.number("select sum(next_offset) from projection_progress").await;
    assert_eq!(ends, 19);
    drop(instance);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_too_large_to_receive_stops_its_partition_by_name_and_the_others_go_on() {
    let servers = servers::shared();
    let world = World::on(&servers.kafka, &servers.database, 2, &[("max.message.bytes", "8000000")]).await;
    let huge = created("huge").with("note", "x".repeat(5_000_000).into());
    let (before, after, beside) = (created("before"), created("after"), life("beside", 3));
    for event in [&before, &huge, &after] {
        world.publish([event.record_on(0)]).await;
    }
    world.publish([beside[0].record_on(1)]).await;
    let limit = [("STREAMVIEW_KAFKA__MAX_FETCH_BYTES", "4000000")];
    let instance = world.start_with(&limit).await;

    let detail = until_paused(&instance, 0, "unreadable_batch").await;

    assert!(detail.contains("partition 0, the batch at offset 1") && detail.contains("max_fetch_bytes"), "{detail}");
    until_told_everywhere(&instance, &[0]).await;
    world.publish(beside[1..].iter().map(|event| event.record_on(1))).await;
    instance.order_at("beside", 3).await;
    assert_eq!(world.consumed().await, 4);
    // What it says helps: with a larger limit the record is a dead letter like any other.
    instance.stop().await;
    let instance = world.start().await;
    instance.order_at("after", 1).await;
    assert_eq!(world.conservation().await, [6, 5, 0, 0, 0, 0, 1]);
    let expected = oracle([&before, &after].into_iter().chain(&beside));
    assert_eq!(stored(&world).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_larger_than_what_an_answer_brings_of_a_partition_come_whole_from_each_in_turn() {
    let world = World::new(3).await;
    // 256 KiB are asked for of each partition, and no batch is that small.
    let lives: Vec<_> = (0..3)
        .map(|partition| {
            let life = life(&format!("o-{partition}"), 5).into_iter();
            life.map(|event| event.with("note", "x".repeat(600_000).into())).collect::<Vec<_>>()
        })
        .collect();
    for (partition, event) in (0..).zip(&lives).flat_map(|(partition, life)| life.iter().map(move |e| (partition, e))) {
        world.publish([event.record_on(partition)]).await;
    }
    let _instance = world.start_with(&[("STREAMVIEW_KAFKA__QUEUE_BYTES", "1048576")]).await;

    world.until_consumed(15).await;

    assert_eq!(stored(&world).await, oracle(lives.iter().flatten()));
    assert_eq!(world.conservation().await, [15, 15, 0, 0, 0, 0, 0]);
}

/// Empties the view, as the runbook says.
async fn start_over(world: &World) {
    let start_over = "truncate orders_1.orders, orders_1.order_items, orders_1.ledger;
                      delete from projection_progress";
    world.sql.batch_execute(start_over).await.unwrap();
}

/// Waits until readiness, lags and metrics say that these partitions, and no others, cannot be read.
async fn until_told_everywhere(instance: &Instance, partitions: &[i64]) {
    instance.until_metric("streamview_partitions_paused", &["unreadable_batch"], partitions.len() as f64).await;
    let ready = instance.until_degraded().await;
    for partition in partitions {
        let name = format!("partition:orders:{partition}");
        let check = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == name.as_str()).unwrap();
        assert!(check["detail"].as_str().unwrap().starts_with("unreadable_batch: "), "{check}");
    }
    until("the lags say so", PATIENCE, || async {
        let lags = instance.json("/ops/lags").await;
        let stopped = lags["partitions"].as_array().unwrap().iter().filter(|lag| {
            lag["verdict"] == "stop" && lag["reason"].as_str().is_some_and(|why| why.contains("unreadable_batch"))
        });
        let stopped: Vec<i64> = stopped.map(|lag| lag["partition"].as_i64().unwrap()).collect();
        (stopped == partitions).then_some(())
    })
    .await;
}

/// Skips one record on partitions 0 and 1, after everything that is refused.
async fn skip_both(world: &World, instance: &Instance) {
    let body = |from: i64, to: i64| json!({ "from": from, "to": to, "reason": "the disk is broken", "actor": "eve" });
    refused(skip_to(instance, 0, body(1, 3)).await, 409, "offset_moved").await;
    refused(skip_to(instance, 0, body(2, 2)).await, 400, "invalid_parameter").await;
    refused(skip_to(instance, 0, body(2, 6)).await, 400, "invalid_parameter").await;
    refused(skip_to(instance, 0, json!({ "from": 2, "to": 3, "reason": " " })).await, 400, "invalid_parameter").await;
    refused(skip_to(instance, 0, json!({ "from": 2 })).await, 400, "bad_request").await;
    refused(skip_to(instance, 2, body(9, 10)).await, 400, "invalid_parameter").await;
    until("the end of partition 2 is seen", PATIENCE, || async {
        (instance.json("/ops/lags").await["partitions"][2]["highWatermark"] == 9).then_some(())
    })
    .await;
    refused(skip_to(instance, 2, body(5, 9)).await, 409, "offset_moved").await;
    refused(skip_to(instance, 7, body(2, 3)).await, 404, "partition_not_found").await;
    let other_view = json!({ "view": "other", "from": 2, "to": 3, "reason": "none" });
    refused(skip_to(instance, 0, other_view).await, 404, "view_not_found").await;
    let url = instance.url("/ops/partitions/0/skip-to");
    let form = instance.http.post(url).body(body(2, 3).to_string()).send().await.unwrap();
    refused(form, 415, "unsupported_media_type").await;
    assert_eq!(world.number("select count(*) from skipped_ranges").await, 0);

    for partition in [0, 1] {
        let answer = skip_to(instance, partition, body(2, 3)).await;
        assert_eq!(answer.status().as_u16(), 200);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!((&answer["skippedOffsets"], &answer["to"]), (&json!(1), &json!(3)));
        assert!(answer["consequences"].as_str().unwrap().contains("never applied"), "{answer}");
        // The same call again decides nothing.
        let again: Value = skip_to(instance, partition, body(2, 3)).await.json().await.unwrap();
        assert_eq!(again, answer);
    }
    refused(skip_to(instance, 1, body(3, 4)).await, 422, "idempotency_key_reused").await;
    let audit = world.row("select count(*), min(reason), min(actor) from skipped_ranges").await;
    assert_eq!((audit.get(0), audit.get(1), audit.get(2)), (2_i64, "the disk is broken", "eve"));
}

/// A record of so many zeros on a partition, compressed by its producer.
fn publish_bomb(world: &World, partition: i32, codec: &str, bytes: usize) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.kafka).set("compression.codec", codec);
    config.set("message.max.bytes", "300000000").set("queue.buffering.max.kbytes", "500000");
    let producer: BaseProducer = config.create().unwrap();
    let (key, payload) = (format!("bomb-{codec}"), vec![0_u8; bytes]);
    producer.send(BaseRecord::to(&world.topic).partition(partition).key(&key).payload(&payload)).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// Memory of the process in MiB: what it holds (`VmRSS:`), or the most that it has held since that was begun anew (`VmHWM:`).
fn memory(instance: &Instance, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", instance.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compression_bomb_stops_its_partition_by_name_and_is_not_copied() {
    const BYTES: usize = 100_000_000;
    let world = World::new(4).await;
    let instance = world.start().await;
    let before = memory(&instance, "VmRSS:");
    let mut peaks = Vec::new();
    // snappy gains too little: such a batch is larger than the topic takes.
    for (partition, codec) in (0..).zip(["zstd", "gzip", "lz4"]) {
        // The allocator gives back a moment later what the one before took.
        let is_given_back = async || (memory(&instance, "VmRSS:") < before + 32).then_some(());
        until("memory is given back", PATIENCE, is_given_back).await;
        std::fs::write(format!("/proc/{}/clear_refs", instance.pid()), "5").unwrap();
        publish_bomb(&world, partition, codec, BYTES);
        let detail = until_paused(&instance, partition.into(), "unreadable_batch").await;
        assert!(detail.contains(&format!("partition {partition}, the batch at offset 0")), "{detail}");
        peaks.push(memory(&instance, "VmHWM:").saturating_sub(before));
    }
    println!("{before} MiB before; more after each bomb: {peaks:?}");
    // librdkafka bounds zstd. Of the others it makes the whole batch, with lz4 in steps of 1.75, whose rests are there for half a
    // second more; we copy nothing of it.
    assert!(peaks[0] < 64 && peaks[1] < 150 && peaks[2] < 330, "{peaks:?}");
    world.publish([created("free").record_on(3)]).await;
    instance.order_at("free", 1).await;
    assert_eq!(world.consumed().await, 1);
}
