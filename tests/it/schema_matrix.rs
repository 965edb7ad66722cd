//! {Avro, JSON Schema, plain JSON} × {three event types} × {version 1, version 2} × {produced by us, by a stock client}
//! give identical rows. And what may follow a schema, a real registry decides.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use apache_avro::Schema;
use serde_json::{Value, json};
use streamview::schemas::subjects::{Format, Strategy, Subject};
use streamview::views::orders::subjects::subjects;
use streamview_lab::servers::{build_once, cache_folder};

use crate::support::orders::{TestEvent, stored};
use crate::support::registry::{self, avro_body, framed, register};
use crate::support::world::{TestRecord, World};

/// One life in every format and version: amounts as texts with the digits that the Avro schemas give them.
fn life(order_id: &str, version: u32) -> Vec<TestEvent> {
    let item = |id: &str, rate: &str, percent: &str| {
        let mut item = json!({ "itemId": id, "sku": "TEA \"green\" ü", "qty": "2.500", "price": "-4.3500" });
        match version {
            1 => item["taxRate"] = rate.into(),
            _ => item["taxPercent"] = percent.into(),
        }
        item
    };
    let untaxed = json!({ "itemId": "i-2", "sku": "CUP", "qty": "1.000", "price": "0.0001" });
    let event = |sequence: i64, event_type: &str, fields: Value| {
        TestEvent::new(order_id, sequence, event_type, fields)
            .with("occurredAt", format!("2026-01-31T12:00:0{sequence}.25Z").into())
    };
    vec![
        event(
            1,
            "OrderCreated",
            json!({ "customerId": "customer", "currency": "EUR", "items": [item("i-1", "0.0700", "7.00"), untaxed] }),
        ),
        event(2, "OrderItemAdded", item("i-3", "0.1900", "19.00")),
        event(3, "OrderStatusChanged", json!({ "status": "Paid" })),
    ]
}

/// One cell of the matrix but for the event type: an order's life.
#[derive(Debug, Clone, Copy)]
struct Cell {
    format: Option<Format>,
    strategy: Strategy,
    version: u32,
    by_stock_client: bool,
}

impl Cell {
    fn all() -> Vec<Cell> {
        let mut cells = Vec::new();
        for by_stock_client in [false, true] {
            for version in [1, 2] {
                cells.push(Cell { format: None, strategy: Strategy::Topic, version, by_stock_client });
                for format in [Format::Avro, Format::Json] {
                    for strategy in [Strategy::Topic, Strategy::Record, Strategy::TopicRecord] {
                        cells.push(Cell { format: Some(format), strategy, version, by_stock_client });
                    }
                }
            }
        }
        cells
    }

    fn order_id(&self) -> String {
        let format = self.format.map_or("Plain".to_owned(), |format| format!("{format:?}"));
        let producer = if self.by_stock_client { "stock" } else { "ours" };
        format!("{producer}-{format}-{:?}-{}", self.strategy, self.version)
    }

    /// The subject of an event, and its branch where that is a union.
    fn subject(&self, format: Format, event: usize, topic: &str) -> (Subject, Option<u32>) {
        let mut all = subjects(format, self.strategy, self.version, topic);
        if all.len() == 1 { (all.remove(0), Some(event as u32)) } else { (all.remove(event), None) }
    }

    fn headers(&self, event: &TestEvent) -> Vec<(String, String)> {
        let header = |name: &str, value: String| (name.to_owned(), value);
        let mut headers = vec![header("x-sequence", event.sequence.to_string())];
        if self.version > 1 {
            headers.push(header("x-event-version", self.version.to_string()));
        }
        headers
    }

    /// By our own hand: `apache_avro`, `serde_json`, five bytes before.
    async fn records(&self, registry: &str, topic: &str) -> Vec<TestRecord> {
        let mut records = Vec::new();
        for (index, event) in life(&self.order_id(), self.version).into_iter().enumerate() {
            let text = event.body.to_string().into_bytes();
            let payload = match self.format {
                None => text,
                Some(format) => {
                    let (subject, branch) = self.subject(format, index, topic);
                    let id = register(registry, &subject.name, format, &subject.schema).await;
                    match format {
                        Format::Json => framed(id, text),
                        Format::Avro => {
                            let schema = Schema::parse_str(&subject.schema).unwrap();
                            framed(id, avro_body(&schema, branch, &event.body))
                        }
                    }
                }
            };
            let headers = self.headers(&event).into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
            records.push(TestRecord { payload: Some(payload), headers, ..event.record() });
        }
        records
    }

    /// Lines for the stock client, which registers by itself.
    fn lines(&self, topic: &str) -> String {
        let mut lines = String::new();
        for (index, event) in life(&self.order_id(), self.version).into_iter().enumerate() {
            let (format, schema) = match self.format {
                None => ("plain", String::new()),
                Some(format) => {
                    let schema = self.subject(format, index, topic).0.schema;
                    (if format == Format::Avro { "avro" } else { "json" }, schema)
                }
            };
            let strategy = match self.strategy {
                Strategy::Topic => "topic",
                Strategy::Record => "record",
                Strategy::TopicRecord => "topic_record",
            };
            let headers: Value = self
                .headers(&event)
                .into_iter()
                .map(|(name, value)| (name, Value::from(value)))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let mut value = event.body.clone();
            let event_type = value["type"].as_str().unwrap().to_owned();
            if self.format == Some(Format::Avro) {
                value.as_object_mut().unwrap().remove("type"); // the record's name says it
            }
            let line = json!({
                "topic": topic, "format": format, "strategy": strategy, "schema": schema, "headers": headers,
                "record": format!("streamview.orders.{event_type}"), "key": event.order_id, "value": value,
            });
            lines += &format!("{line}\n");
        }
        lines
    }
}

/// Python with Confluent's client, in the cache; made once.
fn stock_client() -> PathBuf {
    const PACKAGES: [&str; 1] = ["confluent-kafka[avro,json]==2.16.0"];
    let folder = cache_folder().unwrap().join("servers/stock-client-2.16.0");
    build_once(&folder, |unfinished| {
        let run = |program: PathBuf, arguments: &[&str]| {
            let status =
                Command::new(&program).args(arguments).current_dir(unfinished).stdout(Stdio::null()).status()?;
            anyhow::ensure!(status.success(), "{} {arguments:?} failed", program.display());
            anyhow::Ok(())
        };
        run("python3".into(), &["-m", "venv", "venv"])?;
        run(unfinished.join("venv/bin/python"), &[&["-m", "pip", "install", "--quiet"], &PACKAGES[..]].concat())
    })
    .unwrap();
    folder.join("venv/bin/python")
}

fn publish_by_stock_client(world: &World, registry: &str, cells: &[Cell], topic_of: impl Fn(&Cell) -> String) {
    use std::io::Write as _;
    let mut child = Command::new(stock_client())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/stock_client/produce.py"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = format!("{}\n", json!({ "bootstrap": world.kafka, "registry": registry }));
    for cell in cells {
        input += &cell.lines(&topic_of(cell));
    }
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "the stock client failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_version_and_producer_gives_the_same_rows() {
    let Some(real) = registry::shared() else { return };
    let world = World::new(3).await;
    // Subjects of the topic strategy hold one format: JSON Schema gets names of another topic where we choose them.
    let (ours, stock): (Vec<Cell>, Vec<Cell>) = Cell::all().into_iter().partition(|cell| !cell.by_stock_client);
    for cell in &ours {
        let name = format!("{}.{:?}", world.topic, cell.format);
        world.publish(cell.records(real, &name).await).await;
    }
    let instance = world.start_with(&[("STREAMVIEW_SCHEMA_REGISTRY__URL", real)]).await;
    let (avro, json): (Vec<Cell>, Vec<Cell>) = stock.into_iter().partition(|cell| cell.format != Some(Format::Json));
    publish_by_stock_client(&world, real, &avro, |_| world.topic.clone());
    world.until_consumed(3 * (ours.len() + avro.len()) as i64).await;
    let mut cells = [ours, avro].concat();
    // The other format in the topic's subject needs another topic, and hence another instance.
    let second = World::new(3).await;
    publish_by_stock_client(&second, real, &json, |_| second.topic.clone());
    let other = second.start_with(&[("STREAMVIEW_SCHEMA_REGISTRY__URL", real)]).await;
    second.until_consumed(3 * json.len() as i64).await;

    let mut rows = stored(&world).await;
    rows.extend(stored(&second).await);
    cells.extend(json);
    assert_eq!(rows.len(), 28);
    let expected = rows["ours-Plain-Topic-1"].replace("ours-Plain-Topic-1", "ORDER");
    assert!(expected.contains("0.1900") && expected.contains("2.500 -4.3500"), "{expected}");
    for cell in &cells {
        let id = cell.order_id();
        assert_eq!(rows[&id].replace(&id, "ORDER"), expected, "{cell:?}");
    }
    for world in [&world, &second] {
        assert_eq!(world.number("select count(*) from dead_letters").await, 0);
    }
    histories_say_the_same(&world).await;
    drop((instance, other));
}

/// The history holds an Avro event as the JSON that it would have been, but for the type, which its record's name says,
/// and for fields that are null.
async fn histories_say_the_same(world: &World) {
    let history = async |order: &str| {
        let query = "select jsonb_strip_nulls(payload - 'type')::text from order_events_view where order_id = $1 order by sequence";
        let rows = world.sql.query(query, &[&order]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0).replace(order, "ORDER")).collect::<Vec<_>>()
    };
    for version in [1, 2] {
        let plain = history(&format!("ours-Plain-Topic-{version}")).await;
        for order in ["ours-Avro-Topic", "ours-Avro-Record", "stock-Avro-TopicRecord"] {
            assert_eq!(history(&format!("{order}-{version}")).await, plain, "{order}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_with_other_types_older_names_and_more_fields_gives_the_same_rows() {
    let Some(real) = registry::shared() else { return };
    let world = World::new(1).await;
    let schema = r#"{"type":"record","name":"OrderCreated","namespace":"com.shop","fields":[
        {"name":"basket","type":"long"},
        {"name":"type","type":"string"},{"name":"eventId","type":"string"},{"name":"orderId","type":"string"},
        {"name":"occurredAt","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"currency","type":"string"},{"name":"customerId","type":["null","string"]},
        {"name":"items","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
            {"name":"price","type":{"type":"fixed","name":"Money","size":16,"logicalType":"decimal","precision":30,"scale":4}},
            {"name":"qty","type":"string"},{"name":"sku","type":"string"},{"name":"itemId","type":"string"},
            {"name":"taxRate","type":["null","string"]}]}}}]}"#;
    let as_text = schema.replace(r#"{"type":"long","logicalType":"timestamp-millis"}"#, "\"string\"");
    let instance = world.start_with(&[("STREAMVIEW_SCHEMA_REGISTRY__URL", real)]).await;
    world.publish([life("plain", 1).remove(0).record()]).await;
    instance.order_at("plain", 1).await;
    for (order, schema) in [("millis", schema), ("text", as_text.as_str())] {
        let id = register(real, &format!("{}-{order}", world.topic), Format::Avro, schema).await;
        let event = life(order, 1).remove(0);
        let body = avro_body(&Schema::parse_str(schema).unwrap(), None, &event.body);
        world.publish([TestRecord { payload: Some(framed(id, body)), ..event.record() }]).await;
        instance.order_at(order, 1).await;
        let rows = stored(&world).await;
        assert_eq!(rows[order].replace(order, "plain"), rows["plain"], "{order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_follow_is_registered_and_what_may_not_is_refused_with_the_registrys_reason() {
    let Some(real) = registry::shared() else { return };
    let world = World::new(1).await;
    let run = async |topic: &str, arguments: &str| {
        let topic = ("STREAMVIEW_VIEWS__ORDERS__TOPIC", topic);
        let arguments: Vec<&str> = ["schemas"].into_iter().chain(arguments.split(' ')).collect();
        let command = world.launch_command(&arguments, &[topic, ("STREAMVIEW_SCHEMA_REGISTRY__URL", real)]);
        (command.until_ended().await.code().unwrap(), command.log_text())
    };
    for format in ["avro", "json"] {
        let topic = format!("{}.{format}", world.topic);
        let subject = format!("{topic}-value");
        let first = run(&topic, &format!("diff --format {format}")).await;
        assert!(first.0 == 1 && first.1.contains("nothing registered yet"), "{first:?}");
        for version in [1, 2] {
            let registered = run(&topic, &format!("register --format {format} --version {version}")).await;
            assert!(registered.0 == 0 && registered.1.contains("registered as id"), "{registered:?}");
        }
        assert_eq!(run(&topic, &format!("diff --format {format}")).await, (0, format!("{subject}: as registered\n")));
        let old = run(&topic, &format!("diff --format {format} --version 1")).await;
        assert!(old.0 == 1 && old.1.contains("taxPercent"), "{old:?}");

        // Somebody else's schema in our subject, which ours may not follow.
        let (theirs, reason) = if format == "avro" {
            (
                include_str!("../../schemas/avro/order_status_changed.avsc").replace("\"string\"", "\"boolean\""),
                "type mismatch",
            )
        } else {
            let schema = include_str!("../../schemas/json/order_status_changed.schema.json");
            (schema.replace("\"maxLength\": 256", "\"maxLength\": 999"), "maxLength")
        };
        let other = format!("{topic}.other");
        let record = if format == "avro" { "streamview.orders.OrderStatusChanged" } else { "OrderStatusChanged" };
        let wire = if format == "avro" { Format::Avro } else { Format::Json };
        register(real, &format!("{other}-{record}"), wire, &theirs).await;
        for action in ["check", "register"] {
            let arguments = format!("{action} --format {format} --strategy topic_record");
            let (code, text) = run(&other, &arguments).await;
            assert_eq!(code, 1, "{text}");
            assert!(text.contains("not compatible") && text.contains(reason), "{text}");
            assert!(text.contains(&format!("refused: {other}-{record}")), "{text}");
        }
    }
    // A property more under the same title: forbidden for an open JSON Schema, hence a title of its own.
    let topic = format!("{}.json.other", world.topic);
    let v1 = &subjects(Format::Json, Strategy::TopicRecord, 1, &topic)[1];
    register(real, &v1.name, Format::Json, &v1.schema).await;
    let v2 = subjects(Format::Json, Strategy::TopicRecord, 2, &topic).remove(1);
    let verdict =
        streamview::schemas::subjects::check(&registry::client(real), &Subject { name: v1.name.clone(), ..v2 }).await;
    let text = format!("{verdict:?}");
    assert!(text.contains("Incompatible") && text.contains("taxPercent"), "{text}");
}
