//! One test's world: a topic with its DLQ topic, a database, a consumer group.

use std::sync::atomic::{AtomicU64, Ordering};
use streamview::config::ViewSettings;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_postgres::{Client, NoTls, Row};

use crate::support::instance::Instance;
use crate::support::odd_header;
use crate::support::patience::watch_database;
use crate::support::servers::{self, execute, with_database};
use crate::support::{PATIENCE, until};

/// A record to publish. Without a partition the key decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestRecord {
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub partition: Option<i32>,
}

/// The setting of a topic whose records are old when they come: the broker would delete them sooner or later, by their times.
pub const KEPT_FOR_EVER: (&str, &str) = ("retention.ms", "-1");

/// A topic, a database and a group of their own.
pub struct World {
    pub kafka: String,
    pub database: String,
    pub topic: String,
    pub dlq_topic: String,
    pub group: String,
    pub sql: Client,
    producer: FutureProducer,
}

/// The headers of a record.
pub fn encoded(record: &TestRecord) -> OwnedHeaders {
    let all = record.headers.iter();
    all.fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

impl World {
    /// A world on the shared servers.
    pub async fn new(partitions: i32) -> World {
        let servers = servers::shared();
        World::on(&servers.kafka, &servers.database, partitions, &[]).await
    }

    /// A world on the shared servers, whose topic keeps records of any age.
    pub async fn of_old_records(partitions: i32) -> World {
        let servers = servers::shared();
        World::on(&servers.kafka, &servers.database, partitions, &[KEPT_FOR_EVER]).await
    }

    /// A world on given servers, with topic settings.
    pub async fn on(kafka: &str, maintenance: &str, partitions: i32, settings: &[(&str, &str)]) -> World {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // The number first: of a thread's name, which its topic is in, the kernel keeps 15 bytes.
        let name = format!("t{}_{}", NUMBER.fetch_add(1, Ordering::Relaxed), std::process::id());
        execute(maintenance, &format!("create database {name} template {}", servers::TEMPLATE)).await;
        let database = with_database(maintenance, &name);
        watch_database(&database);
        let sql = connect(&database).await;
        let producer = producer(kafka);
        let world = World {
            kafka: kafka.to_owned(),
            database,
            topic: format!("{name}.events"),
            dlq_topic: format!("{name}.events.dlq"),
            group: format!("{name}.group"),
            sql,
            producer,
        };
        world.create_topic(&world.topic, partitions, settings).await;
        world.create_topic(&world.dlq_topic, 1, &[("max.message.bytes", "20000000")]).await;
        world
    }

    pub async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = client(&self.kafka).create().unwrap();
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        // A topic that was just deleted is still there for a moment.
        until("the topic is created", PATIENCE, || async {
            admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].is_ok().then_some(())
        })
        .await;
    }

    pub async fn delete_topic(&self, name: &str) {
        let admin: AdminClient<DefaultClientContext> = client(&self.kafka).create().unwrap();
        admin.delete_topics(&[name], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }

    /// Grows the topic to `partitions`; records published from now on are spread over all of them.
    pub async fn grow_topic(&mut self, partitions: usize) {
        let admin: AdminClient<DefaultClientContext> = client(&self.kafka).create().unwrap();
        let growth = NewPartitions::new(&self.topic, partitions);
        admin.create_partitions([&growth], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        // A producer that knows of the new partitions from the start.
        self.producer = producer(&self.kafka);
    }

    /// Deletes the topic and creates it again, empty.
    pub async fn recreate_topic(&mut self, partitions: i32) {
        self.delete_topic(&self.topic).await;
        self.create_topic(&self.topic, partitions, &[]).await;
        // A producer that has never seen the old one.
        self.producer = producer(&self.kafka);
    }

    /// Deletes the records of a partition below `offset`.
    pub async fn truncate(&self, partition: i32, offset: i64) {
        self.truncate_topic(&self.topic, partition, offset).await;
    }

    /// Likewise, of any topic.
    pub async fn truncate_topic(&self, topic: &str, partition: i32, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = client(&self.kafka).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        let deleted = admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
        for partition in deleted.elements() {
            partition.error().unwrap();
        }
    }

    /// The settings that point an instance at this world.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS", self.kafka.as_str()),
            ("STREAMVIEW_KAFKA__GROUP_ID", &self.group),
            // The broker's lowest: a crashed instance is replaced within that time.
            ("STREAMVIEW_KAFKA__SESSION_TIMEOUT_MS", "6000"),
            ("STREAMVIEW_DATABASE__URL", &self.database),
            ("STREAMVIEW_VIEWS__ORDERS__TOPIC", &self.topic),
            ("STREAMVIEW_VIEWS__ORDERS__DLQ_TOPIC", &self.dlq_topic),
            ("STREAMVIEW_LOG__LEVEL", "info,streamview=debug"),
            // Generous: a machine that is busy with other tests is no fault. Tests of these limits set their own.
            ("STREAMVIEW_DATABASE__CONNECT_TIMEOUT_MS", "30000"),
            ("STREAMVIEW_DATABASE__READ_TIMEOUT_MS", "30000"),
            ("STREAMVIEW_SCHEMA_REGISTRY__TIMEOUT_MS", "30000"),
            ("STREAMVIEW_HTTP__MAX_WAIT_MS", "60000"),
            ("STREAMVIEW_PROJECTOR__SHUTDOWN_TIMEOUT_MS", "60000"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// The settings of a view on this world's topics.
    pub fn view_settings(&self) -> ViewSettings {
        let (topic, dlq_topic) = (self.topic.clone(), self.dlq_topic.clone());
        ViewSettings { topic, dlq_topic, history: None, gap_policy: None, first_sequence: None, tax: None }
    }

    /// Starts an instance and waits until it is ready.
    pub async fn start(&self) -> Instance {
        self.start_with(&[]).await
    }

    /// Starts an instance with further settings and waits until it is ready.
    pub async fn start_with(&self, settings: &[(&str, &str)]) -> Instance {
        let instance = self.launch(settings);
        instance.until_ready().await;
        instance
    }

    /// Starts an instance that talks TLS, and waits until it is ready; `http` is the client that it is talked to with.
    pub async fn start_with_tls(&self, settings: &[(&str, String)], http: reqwest::Client) -> Instance {
        let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let instance = self.launch(&settings).with_tls(http);
        instance.until_ready().await;
        instance
    }

    /// Starts an instance and does not wait.
    pub fn launch(&self, settings: &[(&str, &str)]) -> Instance {
        self.launch_command(&["serve"], settings)
    }

    /// Starts an instance with another command line and does not wait.
    pub fn launch_command(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Instance {
        let mut environment = self.environment();
        environment.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Instance::launch(arguments, environment)
    }

    /// Publishes records to the world's topic in order and waits until the broker has them.
    pub async fn publish(&self, records: impl IntoIterator<Item = TestRecord>) {
        self.publish_to(&self.topic, records).await;
    }

    /// Likewise, to any topic.
    pub async fn publish_to(&self, topic: &str, records: impl IntoIterator<Item = TestRecord>) {
        self.publish_at(topic, records.into_iter().map(|record| (record, None))).await;
    }

    /// Likewise, with the timestamps that a producer sets, in milliseconds.
    pub async fn publish_at(&self, topic: &str, records: impl IntoIterator<Item = (TestRecord, Option<i64>)>) {
        let mut deliveries = Vec::new();
        for (record, timestamp) in records {
            let headers = encoded(&record);
            let mut outgoing = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
            outgoing.key = record.key.as_deref();
            outgoing.payload = record.payload.as_deref();
            outgoing.partition = record.partition;
            outgoing.timestamp = timestamp;
            let delivery = loop {
                match self.producer.send_result(outgoing) {
                    Ok(delivery) => break delivery,
                    Err((_, returned)) => {
                        outgoing = returned; // the queue is full
                        tokio::task::yield_now().await;
                    }
                }
            };
            deliveries.push(delivery);
        }
        for delivery in deliveries {
            delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
    }

    /// Publishes one record with a header more, whose name is not UTF-8.
    pub async fn publish_odd(&self, topic: &str, record: &TestRecord) {
        let mut outgoing = FutureRecord::<[u8], [u8]>::to(topic).headers(odd_header::add(encoded(record)));
        (outgoing.key, outgoing.payload) = (record.key.as_deref(), record.payload.as_deref());
        self.producer.send(outgoing, PATIENCE).await.map_err(|(error, _)| error).unwrap();
    }

    /// Everything on the DLQ topic now, oldest first.
    pub fn dead_letters_on_topic(&self) -> Vec<OwnedMessage> {
        records(&self.kafka, &self.dlq_topic)
    }

    /// Connects to the database again, after it was away.
    pub async fn reconnect(&mut self) {
        self.sql = connect(&self.database).await;
    }

    /// One row.
    pub async fn row(&self, query: &str) -> Row {
        self.sql.query_one(query, &[]).await.unwrap()
    }

    /// One number.
    pub async fn number(&self, query: &str) -> i64 {
        self.row(&format!("select ({query})::bigint")).await.get(0)
    }

    /// Records consumed and committed so far.
    pub async fn consumed(&self) -> i64 {
        self.number("select coalesce(sum(consumed), 0) from projection_progress").await
    }

    /// Waits until that many records have been consumed.
    pub async fn until_consumed(&self, records: i64) {
        until(&format!("{records} records are consumed"), PATIENCE, || async {
            (self.consumed().await >= records).then_some(())
        })
        .await;
    }

    /// Consumed minus everything accounted for, and its parts: consumed, applied, duplicate, late, conflict, parked,
    /// dead-lettered.
    pub async fn conservation(&self) -> [i64; 7] {
        let row = self
            .row(
                "select sum(consumed)::bigint, sum(applied)::bigint, sum(duplicate)::bigint, sum(late)::bigint, \
                 sum(conflict)::bigint, sum(parked)::bigint, sum(dead_lettered)::bigint from projection_progress",
            )
            .await;
        std::array::from_fn(|index| row.get(index))
    }
}

/// Everything in the first partition of a topic now, oldest first.
pub fn records(kafka: &str, topic: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = client(kafka)
        .set("group.id", "unused")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut messages = Vec::new();
    loop {
        match consumer.poll(PATIENCE).expect("the broker says where the topic ends") {
            Ok(message) => messages.push(message.detach()),
            Err(KafkaError::PartitionEOF(_)) => return messages,
            // A broker that was restarted is found again by the client.
            Err(error) => assert!(is_passing(error.rdkafka_error_code()), "{error}"),
        }
    }
}

/// The value of a text header.
pub fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(found.value.unwrap_or_default()).into_owned())
}

/// A connection; its driver ends with it.
pub async fn connect(database: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(database, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn is_passing(code: Option<RDKafkaErrorCode>) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(code, Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve))
}

fn producer(kafka: &str) -> FutureProducer {
    client(kafka)
        .set("linger.ms", "2")
        .set("message.max.bytes", "20000000")
        .set("enable.idempotence", "true")
        .create()
        .unwrap()
}

fn client(kafka: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka).set("partitioner", "murmur2_random");
    config
}
