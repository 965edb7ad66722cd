//! The DLQ topic: it may be missing, full or forbidden, and what stands on it is understood by Kafka's own tools and
//! read back by us.

use std::process::Command;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::Message;
use streamview::codec::dlq_headers::{self, Writer};
use streamview::config::Config;
use streamview::platforms::kafka::bounded::read_topic;
use streamview_lab::servers::{KafkaOptions, KafkaServer};

use crate::support::instance::Instance;
use crate::support::load::{Load, letters_in_table, letters_on_topic};
use crate::support::orders::{created, life};
use crate::support::servers;
use crate::support::world::{TestRecord, World, header};
use crate::support::{PATIENCE, until};

/// Waits until readiness, metric and table say that `letters` wait; the view runs on meanwhile.
async fn until_letters_wait(instance: &Instance, letters: usize) -> String {
    instance.until_metric("streamview_dead_letters_unpublished", &[], letters as f64).await;
    until("readiness says that letters wait", PATIENCE, || async {
        let ready = instance.readiness().await;
        let checks = ready["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "dead_letters:orders")?;
        assert_eq!((&ready["status"], &check["status"]), (&"degraded".into(), &"degraded".into()));
        Some(check["detail"].as_str().unwrap().to_owned())
    })
    .await
}

async fn until_letters_flow(instance: &Instance) {
    instance.until_metric("streamview_dead_letters_unpublished", &[], 0.0).await;
    until("readiness says nothing of letters", PATIENCE, || async {
        (instance.readiness().await["status"] == "ok").then_some(())
    })
    .await;
}

async fn until_published(world: &World, letters: i64) {
    let published = "select count(*) from dead_letters where published_at is not null";
    until("the letters are published", PATIENCE, || async { (world.number(published).await == letters).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_too_large_in_key_or_headers_goes_as_a_pointer_and_repeats_no_other() {
    let mut world = World::new(1).await;
    world.dlq_topic = format!("{}.small", world.dlq_topic);
    world.create_topic(&world.dlq_topic, 1, &[("max.message.bytes", "3000")]).await;
    let (mut headers, mut key) = (broken("headers"), broken("key"));
    headers.headers.push(("baggage".to_owned(), vec![b'x'; 5_000]));
    key.key = Some(vec![b'k'; 5_000]);
    let _instance = world.start().await;
    world.publish([broken("before"), headers, key, broken("after")]).await;
    until_published(&world, 4).await;

    let mut letters = world.dead_letters_on_topic();
    letters.sort_by_key(|letter| header(letter, "x-original-offset"));
    let omitted: Vec<_> = letters.iter().map(|letter| header(letter, "x-dlq-payload").is_some()).collect();
    assert_eq!(omitted, [false, true, true, false]);
    assert!(letters[1..3].iter().all(|letter| letter.key().is_none() && header(letter, "baggage").is_none()));
    let kept = "select count(*) from dead_letters where length(headers) > 5000 or length(record_key) = 5000";
    assert_eq!(world.number(kept).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dlq_topic_that_takes_no_writes_stops_nothing_and_gets_each_letter_once_when_it_does() {
    let world = World::new(2).await;
    world.delete_topic(&world.dlq_topic).await;
    // Not even a pointer to a letter fits: every write is refused.
    world.create_topic(&world.dlq_topic, 1, &[("max.message.bytes", "100")]).await;
    let load = Load::new("o", 100, 31);
    let instance = world.start().await;
    world.publish(load.records()).await;
    world.until_consumed(load.len()).await;
    let letters = letters_in_table(&world).await;
    assert!(letters.len() > 10);
    let why = until_letters_wait(&instance, letters.len()).await;
    assert!(!why.is_empty() && letters_on_topic(&world).is_empty(), "{why}");
    // Others go on meanwhile.
    world.publish(life("more", 3).iter().map(|event| event.record())).await;
    instance.order_at("more", 3).await;

    let mut config = ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> = config.set("bootstrap.servers", &world.kafka).create().unwrap();
    let resource = ResourceSpecifier::Topic(&world.dlq_topic);
    let eased = AlterConfig::new(resource).set("max.message.bytes", "1000000");
    admin.alter_configs([&eased], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();

    until_letters_flow(&instance).await;
    assert_eq!(letters_on_topic(&world), letters, "each letter once");
}

/// Runs one of Kafka's own tools to its end; gives what it printed.
fn run(mut tool: Command) -> String {
    let output = tool.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{tool:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

fn acl(kafka: &KafkaServer, change: &str, topic: &str) {
    let mut tool = kafka.tool("org.apache.kafka.tools.AclCommand");
    tool.args(["--bootstrap-server", &kafka.bootstrap(), change, "--force", "--topic", topic]);
    run({
        tool.args(["--deny-principal", "User:*", "--operation", "Write"]);
        tool
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_dlq_topic_stops_nothing_and_gets_each_letter_once_when_it_is_allowed() {
    let settings = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let kafka = KafkaServer::start(KafkaOptions { settings, ..KafkaOptions::default() }).unwrap();
    let world = World::on(&kafka.bootstrap(), &servers::shared().database, 2, &[]).await;
    let load = Load::new("o", 100, 32);
    let instance = world.start().await;
    acl(&kafka, "--add", &world.dlq_topic);
    world.publish(load.records()).await;
    world.until_consumed(load.len()).await;
    let letters = letters_in_table(&world).await;
    let why = until_letters_wait(&instance, letters.len()).await;
    assert!(why.to_lowercase().contains("authorization"), "{why}");
    world.publish(life("more", 3).iter().map(|event| event.record())).await;
    instance.order_at("more", 3).await;

    acl(&kafka, "--remove", &world.dlq_topic);

    until_letters_flow(&instance).await;
    assert_eq!(letters_on_topic(&world), letters, "each letter once");
}

/// A record that is refused, with headers of its own.
fn broken(order: &str) -> TestRecord {
    let mut record = TestRecord { payload: Some(b"{ not json".to_vec()), ..created(order).record() };
    record
        .headers
        .push(("traceparent".to_owned(), b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec()));
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn kafkas_own_console_consumer_shows_what_was_refused_and_why() {
    let kafka = servers::own_kafka();
    let world = World::on(&kafka.bootstrap(), &servers::shared().database, 1, &[]).await;
    let _instance = world.start().await;
    world.publish([created("good").record(), broken("bad")]).await;
    until_published(&world, 1).await;

    let mut tool = kafka.tool("org.apache.kafka.tools.consumer.ConsoleConsumer");
    tool.args(["--bootstrap-server", &world.kafka, "--topic", &world.dlq_topic, "--from-beginning"]);
    tool.args(["--max-messages", "1", "--timeout-ms", "300000"]);
    for property in ["print.headers=true", "print.key=true", "print.value=true"] {
        tool.args(["--property", property]);
    }
    let printed = run(tool);

    let topic = &world.topic;
    for part in [
        "x-sequence:1,traceparent:00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01,x-dlq-reason:invalid_json"
            .into(),
        format!("x-original-topic:{topic},x-original-partition:0,x-original-offset:1"),
        format!("kafka_dlt-original-topic:{topic},"),
        format!("__connect.errors.topic:{topic},__connect.errors.partition:0,__connect.errors.offset:1"),
        "\tbad\t{ not json".to_owned(),
    ] {
        assert!(printed.contains(&part), "{part} is not in {printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dlq_topic_is_read_back_to_its_end_with_what_other_tools_put_there() {
    let world = World::new(1).await;
    let _instance = world.start().await;
    world.publish([created("good").record(), broken("bad-1"), broken("bad-2")]).await;
    until_published(&world, 2).await;
    let foreign = |headers: &[(&str, &[u8])]| TestRecord {
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
        ..broken("foreign")
    };
    let (topic, two, seven) = (world.topic.as_bytes(), 2_i32.to_be_bytes(), 7_i64.to_be_bytes());
    let others = [
        foreign(&[
            ("x-sequence", b"1"),
            ("kafka_dlt-original-topic", topic),
            ("kafka_dlt-original-partition", &two),
            ("kafka_dlt-original-offset", &seven),
        ]),
        foreign(&[
            ("__connect.errors.topic", topic),
            ("__connect.errors.partition", b"2"),
            ("__connect.errors.offset", b"8"),
            ("x-sequence", b"1"),
        ]),
        foreign(&[("x-sequence", b"1")]),
    ];
    world.publish_to(&world.dlq_topic, others).await;

    let mut kafka = Config::defaults().kafka;
    kafka.bootstrap_servers = world.kafka.clone();
    let dlq_topic = world.dlq_topic.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut read = Vec::new();
        let count = read_topic(&kafka, &dlq_topic, |record| {
            read.push(dlq_headers::read(&record).map(|letter| {
                assert_eq!(letter.payload, Some(b"{ not json".as_slice()));
                (letter.writer, letter.topic, letter.partition, letter.offset, letter.headers)
            }));
        });
        assert_eq!(count.unwrap(), 5);
        read
    });
    let read = read.await.unwrap();

    let stored = world.sql.query("select headers from dead_letters order by \"offset\"", &[]).await.unwrap();
    let headers = |index: usize| stored[index].get::<_, Vec<u8>>(0);
    let letter = |writer, partition, offset, headers| Some((writer, world.topic.clone(), partition, offset, headers));
    let mut sequence = Vec::new();
    streamview::domain::record::Headers::push(&mut sequence, b"x-sequence", Some(b"1"));
    assert_eq!(
        read,
        [
            letter(Writer::StreamView, 0, 1, headers(0)),
            letter(Writer::StreamView, 0, 2, headers(1)),
            letter(Writer::Spring, 2, 7, sequence.clone()),
            letter(Writer::Connect, 2, 8, sequence),
            None,
        ]
    );
}
