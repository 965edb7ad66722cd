//! Values and columns as the stream manager reads them, by a real registry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use streamview::config::{Config, SecretUrl};
use streamview::manager::Fault;
use streamview::manager::catalog::{Column, Format as Written};
use streamview::manager::ports::{From, PortError, Schemas};
use streamview::manager::preview::{Output, PreviewLimits, Previews, Told, Watchable};
use streamview::platforms::kafka::topics::Topics;
use streamview::schemas::client::install_tls;
use streamview::schemas::subjects::Format;
use streamview::schemas::values::Values;
use streamview::telemetry::metrics::Metrics;

use crate::support::registry::{self, Fault as Trouble, Proxy, framed, register};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

const AVRO: &str = r#"{"type":"record","name":"Sale","fields":[
    {"name":"ID","type":"long"},
    {"name":"AMOUNT","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},
    {"name":"NOTE","type":["null","string"],"default":null}]}"#;
const JSON: &str =
    r#"{"type":"object","properties":{"ID":{"type":"integer"},"NAME":{"type":"string"}},"required":["ID"]}"#;

/// What one of them waits for an answer of the registry, where it is there and may be busy.
const PATIENT: Duration = Duration::from_secs(30);

fn values(url: &str, timeout: Duration) -> Values {
    install_tls();
    let mut settings = Config::defaults().schema_registry;
    settings.url = SecretUrl::new(url);
    settings.timeout_ms = u64::try_from(timeout.as_millis()).unwrap();
    Values::new(&settings, Arc::new(Metrics::new())).unwrap()
}

fn topic() -> String {
    format!("values-{:016x}", fastrand::u64(..))
}

fn words(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| format!("{} {}", column.name, column.data_type)).collect()
}

/// An Avro body: zigzag for the long, a decimal of two bytes, and no note.
fn sale(id: u8) -> Vec<u8> {
    vec![id << 1, 4, 0x04, 0xd2, 0]
}

#[tokio::test]
async fn columns_and_values_are_read_by_the_registry_and_what_it_cannot_say_is_said() {
    let Some(real) = registry::shared() else { return };
    let values = values(real, PATIENT);
    let (avro, plain) = (topic(), topic());
    let id = register(real, &format!("{avro}-value"), Format::Avro, AVRO).await;
    let (format, columns) = values.columns_of(&avro).await.unwrap().unwrap();
    assert_eq!(
        (format, words(&columns)),
        (Written::Avro, ["ID bigint", "AMOUNT decimal(10, 2)", "NOTE string"].map(str::to_owned).to_vec())
    );
    assert_eq!(columns.iter().map(|column| column.nullable).collect::<Vec<_>>(), [false, false, true]);
    let read = values.decode(&framed(id, sale(7))).await.unwrap().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&read.json).unwrap(), json!({ "ID": 7, "AMOUNT": "12.34", "NOTE": null }));
    assert!(matches!(values.decode(&framed(id, vec![1])).await, Err(PortError::Refused(_))), "it is cut");

    let schema = register(real, &format!("{plain}-value"), Format::Json, JSON).await;
    let (format, columns) = values.columns_of(&plain).await.unwrap().unwrap();
    assert_eq!(
        (format, words(&columns)),
        (Written::JsonSchema, ["ID bigint", "NAME string"].map(str::to_owned).to_vec())
    );
    let body = br#"{"ID":9007199254740993,"NAME":"x"}"#.to_vec();
    let read = values.decode(&framed(schema, body)).await.unwrap().unwrap();
    assert_eq!((read.format, read.json.as_str()), (Written::Json, r#"{"ID":"9007199254740993","NAME":"x"}"#));

    assert_eq!(values.columns_of(&topic()).await.unwrap(), None, "there is no subject");
    assert_eq!(values.decode(b"{\"ID\":1}").await.unwrap(), None, "it is no frame");
}

/// A stream's output with these columns, that Flink fills.
struct Sales(Vec<Column>);

#[async_trait]
impl Watchable for Sales {
    async fn watchable(&self, topic: &str) -> Result<Option<Output>, Fault> {
        Ok(Some(Output { topic: topic.to_owned(), columns: self.0.clone(), is_table: true }))
    }

    async fn output_of(&self, topic: &str) -> Result<Option<Output>, Fault> {
        self.watchable(topic).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_flink_takes_back_under_a_key_in_avro_is_told_by_its_key() {
    let Some(real) = registry::shared() else { return };
    let world = World::new(1).await;
    // The names that Flink gives its records.
    let key = r#"{"type":"record","name":"record","namespace":"org.apache.flink.avro.generated","fields":[
        {"name":"ID","type":"long"},{"name":"SHOP","type":["null","string"],"default":null}]}"#;
    let of_key = register(real, &format!("{}-key", world.topic), Format::Avro, key).await;
    let of_value = register(real, &format!("{}-value", world.topic), Format::Avro, AVRO).await;
    let key = framed(of_key, vec![14, 2, 4, b'k', b'o']);
    let record = |payload| TestRecord { key: Some(key.clone()), payload, ..TestRecord::default() };
    world.publish([record(Some(framed(of_value, sale(7)))), record(None)]).await;

    let values = Arc::new(values(real, PATIENT));
    let mut columns = values.columns_of(&world.topic).await.unwrap().unwrap().1;
    let shop = Column { name: "SHOP".to_owned(), ..columns[2].clone() };
    columns.push(shop);
    let kafka = Arc::new(Topics::new(&Config::load(None, world.environment(), &[]).unwrap().kafka));
    let previews = Previews::new(kafka, Some(values), Arc::new(Sales(columns)), PreviewLimits::default());
    let mut watcher = previews.watch(&world.topic, From::Earliest, "ada").await.unwrap();
    let mut columns = previews.columns(&watcher).await;
    columns.header().unwrap();
    let (mut lines, mut shown) = (Vec::new(), Vec::new());
    while lines.len() < 2 {
        let Told::Frame(frame) = watcher.next().await else { panic!("the topic is there") };
        for row in &frame.rows {
            lines.extend(columns.lines(row));
            shown.push(serde_json::from_str::<Value>(row.json()).unwrap());
        }
    }
    assert_eq!(
        lines,
        [
            r#"{"kind":"updateAfter","row":{"columns":[7,"12.34",null,"ko"]}}"#,
            r#"{"kind":"delete","row":{"columns":[7,null,null,"ko"],"tombstone":true}}"#
        ]
    );
    assert_eq!((&shown[1]["keyFormat"], &shown[1]["format"]), (&json!("avro"), &json!("tombstone")), "{}", shown[1]);
    let text = shown[1]["key"].as_str().expect("a key is a text, whatever its format");
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), json!({ "ID": 7, "SHOP": "ko" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_a_frame_floods_no_registry_and_stalls_nobody() {
    let Some(real) = registry::shared() else { return };
    let proxy = Proxy::start(real).await;
    const HASTY: Duration = Duration::from_secs(1);
    let (patient, hasty, topic) = (values(&proxy.url, PATIENT), values(&proxy.url, HASTY), topic());
    let known = register(real, &format!("{topic}-value"), Format::Avro, AVRO).await;
    patient.decode(&framed(known, sale(1))).await.unwrap().unwrap();

    // Numbers of eight bytes, each of which seems to name a schema of its own.
    let number = |value: u64| ((value << 24) & 0x007f_ffff_ff00_0000).to_be_bytes();
    let (asked, began) = (proxy.requests(), Instant::now());
    for value in 0x0010_0000..0x0010_0000 + 500 {
        assert!(patient.decode(&number(value)).await.is_err(), "{value}");
    }
    let (asked, seconds) = (proxy.requests() - asked, began.elapsed().as_secs_f64());
    assert!((1..=20 * (seconds.ceil() as usize + 1)).contains(&asked), "{asked} questions in {seconds} s");
    // The same one, again and again: it was said that it is none.
    let asked = proxy.requests();
    for _ in 0..100 {
        assert!(patient.decode(&number(0x0010_0000)).await.is_err());
    }
    assert!(proxy.requests() <= asked + 1, "a refusal is kept");

    // Away: one waits, all others do not, and what is known is read.
    until("the schema is known to whoever waits for no more than a second", PATIENCE, || async {
        hasty.decode(&framed(known, sale(1))).await.ok().flatten()
    })
    .await;
    proxy.inject(Trouble::Slow);
    let asked = proxy.requests();
    while !matches!(hasty.decode(&number(0x0020_0000)).await, Err(PortError::Unavailable(why)) if why.contains("not answer"))
    {
    }
    let began = Instant::now();
    for value in 0x0030_0000..0x0030_0000 + 200 {
        assert!(hasty.decode(&number(value)).await.is_err());
    }
    hasty.decode(&framed(known, sale(2))).await.unwrap().unwrap();
    let took = began.elapsed();
    assert!(took < HASTY * 200 / 10, "{took:?}");
    // It is asked again every five seconds.
    let most = 2 + took.as_secs() as usize / 5;
    assert!(proxy.requests() <= asked + most, "{} questions in {took:?}", proxy.requests() - asked);
}
