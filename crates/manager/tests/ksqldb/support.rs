//! A server, an engine that speaks with it, a source with a topic of its own.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use streamview_lab::ksqldb_stand_in::{KsqldbStandIn, Options, Switches};
use streamview_lab::servers::{KafkaOptions, KafkaServer};
use streamview_manager::catalog::{Column, Format, Source};
use streamview_manager::engines::ksqldb::{Ksqldb, Patience};
use streamview_manager::engines::{
    AdHoc, Changes, Deployment, End, Engine, EngineKind, Handle, Item, ObservedState, Row, Rows, Select, Trouble,
};
use streamview_manager::gate::{Dialect, Kind, check};
use streamview_manager::names::Names;
use streamview_manager::settings::{KsqldbSettings, Limits};

/// How long something that has to happen is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One Kafka for the run; it dies with the process.
pub fn kafka() -> String {
    static KAFKA: OnceLock<KafkaServer> = OnceLock::new();
    KAFKA.get_or_init(|| KafkaServer::start(KafkaOptions::default()).unwrap()).bootstrap()
}

pub fn install_tls() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}

/// Asks until there is an answer.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let asked = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Some(found) = probe().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("gave up waiting for {what}"))
}

pub struct World {
    pub server: KsqldbStandIn,
    pub engine: Ksqldb,
    pub source: Source,
    pub settings: KsqldbSettings,
    number: u32,
}

pub fn patience() -> Patience {
    Patience { look_again: Duration::from_millis(20), ..Patience::default() }
}

impl World {
    pub async fn start() -> World {
        World::with(Options::default()).await
    }

    /// Some of the options; Kafka is the run's own.
    pub async fn with(options: Options) -> World {
        install_tls();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let login = options.login.clone();
        let options = Options { bootstrap_servers: kafka(), service_id: format!("t{number}_"), ..options };
        let server = KsqldbStandIn::start(options, &["--exact", "stand_in_process", "--nocapture"]).unwrap();
        let (username, password) = login.unwrap_or_default();
        let settings = KsqldbSettings { url: server.url(), username, password };
        let engine = Ksqldb::new(settings.clone(), patience()).unwrap();
        let column =
            |name: &str, of: &str| Column { name: name.to_owned(), data_type: of.parse().unwrap(), nullable: true };
        let source = Source {
            name: format!("orders{number}"),
            topic: format!("orders_{number}"),
            format: Format::Json,
            columns: vec![
                column("order_id", "bigint"),
                column("customer", "string"),
                column("amount", "decimal(10, 2)"),
            ],
            event_time: None,
            table: None,
        };
        create_topic(&source.topic, 1).await;
        World { server, engine, source, settings, number }
    }

    /// What the gate makes of a text; `orders` is the source.
    pub fn gated(&self, text: &str, kind: Kind) -> Select {
        let text = text.replace("orders", &self.source.name);
        let catalogue = vec![self.source.clone()];
        check(&text, Dialect::of(EngineKind::Ksqldb), kind, &Limits::default(), &catalogue).unwrap().select
    }

    /// A deployment of the definition with this name, and its topic.
    pub async fn deployment(&self, name: &str, text: &str, changes: Changes) -> Deployment {
        let definition = format!("{:08x}ffffffffffffffffffffffff", self.number);
        let names = Names::of(&definition, name);
        create_topic(&names.topic(), 1).await;
        let select = self.gated(text, Kind::Persistent);
        Deployment { definition, names, revision: 1, attempt: 1, select, changes, replaces: false, restore: None }
    }

    pub async fn deploy(&self, deployment: &Deployment) -> Handle {
        self.engine.deploy(deployment).await.unwrap()
    }

    pub fn switch(&self, switches: Switches) {
        self.server.switch(&switches).unwrap();
    }

    /// The statements that were sent and hold these words.
    pub fn sent(&self, words: &str) -> Vec<String> {
        let asked = self.server.asked().unwrap();
        asked.into_iter().map(|asked| asked.statement).filter(|statement| statement.contains(words)).collect()
    }

    pub fn order(&self, id: i64, customer: &str, amount: &str) {
        let value = format!("{{\"order_id\":{id},\"customer\":{},\"amount\":{amount}}}", json!(customer));
        produce(&self.source.topic, None, Some(&value));
    }

    pub async fn state(&self, handle: &Handle) -> Option<ObservedState> {
        let observed = self.engine.observe().await.unwrap();
        observed.into_iter().find(|observed| observed.job_id == handle.job_id).map(|observed| observed.state)
    }

    pub async fn query(&self, text: &str, from_start: bool) -> Result<Rows, Trouble> {
        let select = self.gated(text, Kind::AdHoc { pull: false });
        self.engine.query(AdHoc { id: "q".repeat(32), select, from_start, time_limit: PATIENCE }).await
    }

    /// A statement by hand, past the gate.
    pub async fn by_hand(&self, text: &str) -> (u16, Value) {
        let client = reqwest::Client::new();
        let sent = client.post(format!("{}/ksql", self.settings.url)).json(&json!({ "ksql": text })).send();
        let answer = sent.await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub async fn no_push_query_is_left(&self) {
        until("the end of push queries", || async { self.server.live().unwrap().is_empty().then_some(()) }).await;
    }
}

/// The header's schema, the rows, the end.
pub async fn all(mut rows: Rows) -> (String, Vec<Row>, End) {
    let read = async {
        let (mut header, mut found) = (String::new(), Vec::new());
        while let Some(item) = rows.next().await {
            match item {
                Item::Header { schema, .. } => header = schema,
                Item::Row(row) => found.push(row),
                Item::Seen(seen) => panic!("ksqlDB counts nothing: {seen:?}"),
                Item::End(end) => return (header, found, end),
            }
        }
        panic!("rows without an end: {found:?}");
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the rows end")
}

/// The next item.
pub async fn next(rows: &mut Rows) -> Item {
    tokio::time::timeout(PATIENCE, rows.next()).await.expect("something comes").expect("it goes on")
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka());
    config
}

pub async fn create_topic(name: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap();
}

pub fn topic_exists(name: &str) -> bool {
    let consumer: BaseConsumer = client().create().unwrap();
    consumer.fetch_metadata(None, PATIENCE).unwrap().topics().iter().any(|topic| topic.name() == name)
}

pub fn produce(topic: &str, key: Option<&str>, value: Option<&str>) {
    produce_all(topic, &[(key, value)]);
}

pub fn produce_all(topic: &str, records: &[(Option<&str>, Option<&str>)]) {
    static PRODUCER: OnceLock<ThreadedProducer<rdkafka::producer::DefaultProducerContext>> = OnceLock::new();
    let producer = PRODUCER.get_or_init(|| client().create().unwrap());
    for (key, value) in records {
        let mut record: BaseRecord<'_, str, str> = BaseRecord::to(topic);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// The first records of a topic of one partition: key and value as text.
pub async fn records(topic: &str, count: usize) -> Vec<(String, String)> {
    let topic = topic.to_owned();
    let read = move || {
        let consumer: BaseConsumer = client().set("group.id", "unused").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let text =
            |bytes: Option<&[u8]>| bytes.map_or_else(|| "-".to_owned(), |b| String::from_utf8(b.to_vec()).unwrap());
        let mut found = Vec::new();
        while found.len() < count {
            let message = consumer.poll(PATIENCE).unwrap_or_else(|| panic!("{topic} holds only {found:?}")).unwrap();
            found.push((text(message.key()), text(message.payload())));
        }
        found
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// How many records a topic of one partition holds.
pub fn count(topic: &str) -> i64 {
    let consumer: BaseConsumer = client().create().unwrap();
    consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap().1
}
