//! Kafka as the stream manager needs it: topics made and deleted, how far they reach, what a group has not read, and records
//! as they come, without a trace.

use std::fs;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use streamview::config::{Config, KafkaSettings};
use streamview::manager::ports::{ConsumerGroup, From, Kafka, Place, PortError, RawHeaders, RawRecord, Records};
use streamview::platforms::kafka::bounded::read_topic;
use streamview::platforms::kafka::topics::Topics;

use crate::support::orders::created;
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

fn settings(bootstrap: &str) -> KafkaSettings {
    KafkaSettings { bootstrap_servers: bootstrap.to_owned(), ..Config::defaults().kafka }
}

fn topics(world: &World) -> Topics {
    Topics::new(&settings(&world.kafka))
}

fn value(number: usize, partition: i32) -> TestRecord {
    TestRecord {
        key: Some(format!("k{number}").into_bytes()),
        payload: Some(format!("v{number}").into_bytes()),
        partition: Some(partition),
        ..TestRecord::default()
    }
}

async fn next(records: &mut Records) -> RawRecord {
    let record = tokio::time::timeout(PATIENCE, records.next()).await.expect("a record comes");
    record.expect("there is more").unwrap()
}

async fn values(records: &mut Records, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(String::from_utf8(next(records).await.value.unwrap()).unwrap());
    }
    values.sort();
    values
}

/// A consumer of that group that joins nothing.
fn member(world: &World, group: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.kafka).set("group.id", group).set("enable.auto.commit", "false");
    config.create().unwrap()
}

/// Groups that the brokers know, of those that we name.
async fn groups_of_ours(world: &World) -> Vec<String> {
    let client = member(world, "unused");
    let list = move || {
        let groups = client.fetch_group_list(None, PATIENCE).unwrap();
        groups.groups().iter().map(|group| group.name().to_owned()).collect::<Vec<_>>()
    };
    let groups = tokio::task::spawn_blocking(list).await.unwrap();
    groups.into_iter().filter(|group| group.starts_with("streamview-")).collect()
}

/// Threads of this process that read the topic of that world.
pub fn readers(world: &World) -> usize {
    let name: String = format!("tail-{}", world.topic).chars().take(15).collect();
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|comm| comm.trim_end() == name).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_and_deleted_and_both_can_be_repeated() {
    let world = World::new(1).await;
    let (topics, name) = (topics(&world), format!("view_made_{}", std::process::id()));
    for _ in 0..2 {
        topics.create_topic(&name, 3).await.unwrap();
        assert_eq!(topics.watermarks(&name).await.unwrap(), [(0, 0); 3]);
    }
    let listed = topics.topics().await.unwrap();
    let found = listed.iter().find(|topic| topic.name == name).map(|topic| topic.partitions);
    assert_eq!(found, Some(3));
    assert!(listed.iter().all(|topic| !topic.name.starts_with("__")), "{listed:?}");
    for _ in 0..2 {
        topics.delete_topic(&name).await.unwrap();
    }
    until("the topic is gone", PATIENCE, || async {
        let listed = topics.topics().await.unwrap();
        (!listed.iter().any(|topic| topic.name == name)).then_some(())
    })
    .await;
    let refused = topics.create_topic("no/such name", 1).await.unwrap_err();
    assert!(matches!(refused, PortError::Refused(_)), "{refused:?}");
    let missing = topics.watermarks(&name).await.unwrap_err();
    assert!(matches!(&missing, PortError::Refused(text) if text.contains("no such topic")), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_a_group_is_what_it_has_not_committed() {
    let world = World::new(2).await;
    let topics = topics(&world);
    world.publish((0..10).map(|number| value(number, i32::from(number >= 6)))).await;
    assert_eq!(topics.group_lag(&world.group, &world.topic).await.unwrap(), None, "it has committed nothing");
    let committed = {
        let (world_topic, member) = (world.topic.clone(), member(&world, &world.group));
        move || {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&world_topic, 0, Offset::Offset(4)).unwrap();
            member.commit(&list, rdkafka::consumer::CommitMode::Sync).unwrap();
        }
    };
    tokio::task::spawn_blocking(committed).await.unwrap();
    assert_eq!(
        topics.group_lag(&world.group, &world.topic).await.unwrap(),
        Some(2 + 4),
        "a partition without a commit"
    );
    world.truncate(1, 3).await;
    assert_eq!(topics.group_lag(&world.group, &world.topic).await.unwrap(), Some(2 + 1), "what retention has taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_read_a_topic_are_told_with_their_lag_and_no_others() {
    let world = World::new(2).await;
    let topics = topics(&world);
    world.publish((0..10).map(|number| value(number, i32::from(number >= 6)))).await;
    assert_eq!(topics.consumers(&world.topic, 0).await.unwrap().groups, [], "nobody may be asked");
    // Early in line, whatever other tests do on these brokers.
    let [rests, reads] = ["rests", "reads"].map(|what| format!("0-{}-{what}", world.group));
    let begun = {
        let (topic, rests, reads) = (world.topic.clone(), member(&world, &rests), member(&world, &reads));
        move || {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&topic, 0, Offset::Offset(4)).unwrap();
            rests.commit(&list, rdkafka::consumer::CommitMode::Sync).unwrap();
            reads.subscribe(&[&topic]).unwrap();
            let end = Instant::now() + PATIENCE;
            while reads.assignment().unwrap().count() < 2 {
                assert!(Instant::now() < end, "it is given the partitions");
                drop(reads.poll(Duration::from_millis(50)));
            }
            reads
        }
    };
    let reader = tokio::task::spawn_blocking(begun).await.unwrap();
    let told = topics.consumers(&world.topic, 100).await.unwrap();
    let group = |group: &str, state: &str, members, lag| ConsumerGroup {
        group: group.to_owned(),
        state: state.to_owned(),
        members: Some(members),
        lag,
        trouble: None,
    };
    assert_eq!(told.groups, [group(&reads, "Stable", 1, None), group(&rests, "Empty", 0, Some(2 + 4))]);

    // Whoever reads it just now is asked first; whoever is left is counted.
    let first = topics.consumers(&world.topic, 1).await.unwrap();
    assert_eq!(first.groups, [group(&reads, "Stable", 1, None)]);
    assert!(first.not_asked >= 1, "{first:?}");
    assert!(matches!(topics.consumers("no_such_topic", 100).await, Err(PortError::NoTopic(_))));
    tokio::task::spawn_blocking(move || drop(reader)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_come_with_a_record_in_their_order() {
    let world = World::new(1).await;
    let mut records = topics(&world).tail(&world.topic, From::Earliest, Place::default()).await.unwrap();
    let headers = vec![
        ("source".to_owned(), b"shop".to_vec()),
        ("source".to_owned(), vec![0xff]),
        ("long".to_owned(), vec![b'x'; 513]),
    ];
    world.publish([TestRecord { headers, ..value(1, 0) }, value(2, 0)]).await;
    let RawHeaders { shown, more } = next(&mut records).await.headers;
    let told: Vec<_> = shown.iter().map(|header| (&*header.name, header.value.clone(), header.bytes)).collect();
    assert_eq!(
        told,
        [("source", Some(b"shop".to_vec()), 4), ("source", Some(vec![0xff]), 1), ("long", Some(vec![b'x'; 512]), 513)]
    );
    assert_eq!((more, next(&mut records).await.headers), (0, RawHeaders::default()));
}

/// The client panics at such a name where it is asked for headers.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_whose_name_is_not_text_is_read_by_every_reader() {
    let world = World::new(1).await;
    let mut records = topics(&world).tail(&world.topic, From::Earliest, Place::default()).await.unwrap();
    world.publish_odd(&world.topic, &created("o-1").record()).await;
    // A page that watches, an instance that projects, and whoever reads a topic to its end: the relay, rebuilds, `dlq import`.
    let shown = next(&mut records).await.headers.shown;
    assert_eq!(shown.iter().map(|header| &*header.name).collect::<Vec<_>>(), ["x-sequence", "\u{fffd}"]);
    let instance = world.start().await;
    instance.order_at("o-1", 1).await;
    let (kafka, topic) = (settings(&world.kafka), world.topic.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut names = Vec::new();
        read_topic(&kafka, &topic, |record| {
            names.extend(record.headers.iter().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))));
        })
        .unwrap();
        names
    });
    let read = read.await.unwrap();
    assert_eq!(read[1..], [("\u{fffd}".to_owned(), Some(b"odd".to_vec()))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_do_not_answer_are_unavailable_within_a_bound() {
    let nobody = Topics::new(&settings("127.0.0.1:9"));
    let begun = Instant::now();
    let asked = [
        nobody.topics().await.err(),
        nobody.create_topic("a", 1).await.err(),
        nobody.delete_topic("a").await.err(),
        nobody.consumers("a", 1).await.err(),
        nobody.tail("a", From::Latest, Place::default()).await.err(),
    ];
    for error in asked {
        assert!(matches!(error, Some(PortError::Unavailable(_))), "{error:?}");
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_begins_where_it_is_told_and_leaves_no_group_behind() {
    let world = World::of_old_records(2).await;
    let topics = topics(&world);
    let groups = groups_of_ours(&world).await;
    let old = (0..4).map(|number| (value(number, (number % 2) as i32), Some(1_000 + number as i64)));
    world.publish_at(&world.topic, old).await;
    let mut latest = topics.tail(&world.topic, From::Latest, Place::default()).await.unwrap();
    let mut earliest = topics.tail(&world.topic, From::Earliest, Place::default()).await.unwrap();
    let mut offset = topics.tail(&world.topic, From::Offset(1), Place::default()).await.unwrap();
    let mut beyond = topics.tail(&world.topic, From::Offset(1_000_000), Place::default()).await.unwrap();
    let mut time = topics.tail(&world.topic, From::Time(1_003), Place::default()).await.unwrap();
    let mut later = topics.tail(&world.topic, From::Time(5_000), Place::default()).await.unwrap();
    world.publish_at(&world.topic, [(value(9, 0), Some(9_000))]).await;
    assert_eq!(values(&mut latest, 1).await, ["v9"]);
    assert_eq!(values(&mut beyond, 1).await, ["v9"], "an offset beyond the end is the end");
    assert_eq!(values(&mut later, 1).await, ["v9"]);
    assert_eq!(values(&mut earliest, 5).await, ["v0", "v1", "v2", "v3", "v9"]);
    assert_eq!(values(&mut offset, 3).await, ["v2", "v3", "v9"]);
    assert_eq!(values(&mut time, 2).await, ["v3", "v9"]);

    world.publish_at(&world.topic, [(value(10, 1), Some(9_001))]).await;
    let record = next(&mut latest).await;
    let seen = (record.partition, record.offset, record.timestamp_ms, record.key);
    assert_eq!(seen, (1, 2, Some(9_001), Some(b"k10".to_vec())));

    // What others have there is their affair.
    let left: Vec<String> = groups_of_ours(&world).await.into_iter().filter(|group| !groups.contains(group)).collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(
        topics.tail("not.there", From::Latest, Place::default()).await.err().map(|error| error.to_string()).as_deref(),
        Some("there is no topic not.there")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_with_whoever_reads_it() {
    let world = World::new(1).await;
    let topics = topics(&world);
    // One that waits for records, and one whose reader has taken nothing and never will.
    let idle = topics.tail(&world.topic, From::Latest, Place::default()).await.unwrap();
    world.publish((0..20_000).map(|number| value(number, 0))).await;
    let full = topics.tail(&world.topic, From::Earliest, Place::default()).await.unwrap();
    until("both have threads", PATIENCE, || async { (readers(&world) == 2).then_some(()) }).await;
    let begun = Instant::now();
    drop((idle, full));
    until("both threads are gone", PATIENCE, || async { (readers(&world) == 0).then_some(()) }).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_notices_new_partitions_and_ends_with_its_topic_by_name() {
    let mut world = World::new(1).await;
    let topics = topics(&world);
    let mut records = topics.tail(&world.topic, From::Latest, Place::default()).await.unwrap();
    world.grow_topic(2).await;
    world.publish([value(1, 1), value(2, 0)]).await;
    assert_eq!(values(&mut records, 2).await, ["v1", "v2"]);
    world.delete_topic(&world.topic).await;
    let end = tokio::time::timeout(PATIENCE, records.next()).await.expect("it ends").expect("by name").unwrap_err();
    assert_eq!(end.to_string(), format!("topic {} is not there any more", world.topic));
    assert!(records.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_reads_tens_of_thousands_of_records_a_second() {
    const COUNT: usize = 100_000;
    let world = World::new(2).await;
    world.publish((0..COUNT).map(|number| value(number, (number % 2) as i32))).await;
    let begun = Instant::now();
    let mut records = topics(&world).tail(&world.topic, From::Earliest, Place::default()).await.unwrap();
    for _ in 0..COUNT {
        next(&mut records).await;
    }
    let per_second = COUNT as f64 / begun.elapsed().as_secs_f64();
    println!("{per_second:.0} records a second");
    // A debug build on a busy machine; the benchmark asks for more.
    assert!(per_second > 10_000.0, "{per_second}");
}
