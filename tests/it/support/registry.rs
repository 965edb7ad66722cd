//! A schema registry for tests, a proxy that spoils its answers, and framed events.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use schema_registry_converter::schema_registry_common::get_payload;
use serde_json::Value;
use streamview::config::{Config, SecretUrl};
use streamview::domain::decimal::Decimal;
use streamview::schemas::client::RegistryClient;
use streamview::schemas::subjects::{self, Format, Subject};
use streamview_lab::servers::{RegistryOptions, SchemaRegistry};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

/// The address of a real registry; `None` where there is none to be had, which is said aloud and in CI a failure.
///
/// `STREAMVIEW_TEST_REGISTRY` gives an address; else one is built and started as a child process.
pub fn shared() -> Option<&'static str> {
    static REGISTRY: OnceLock<Option<(String, Option<SchemaRegistry>)>> = OnceLock::new();
    let start = || match std::env::var("STREAMVIEW_TEST_REGISTRY").ok().filter(|url| !url.is_empty()) {
        Some(url) => Some((url, None)),
        None => own(&RegistryOptions::default()).map(|registry| (registry.url(), Some(registry))),
    };
    let registry = REGISTRY.get_or_init(|| std::thread::scope(|scope| scope.spawn(start).join().unwrap()));
    registry.as_ref().map(|(url, _)| url.as_str())
}

/// A registry for one test; `None` as above.
pub fn own(options: &RegistryOptions) -> Option<SchemaRegistry> {
    match SchemaRegistry::start(options) {
        Ok(registry) => Some(registry),
        Err(error) => {
            let text = format!("\nNOT TESTED: there is no schema registry here: {error:#}\n\n");
            // Past the capture of test output: a run without these tests must not look like one with them.
            std::io::stderr().write_all(text.as_bytes()).unwrap();
            assert!(std::env::var_os("CI").is_none(), "in CI the registry's tests have to run");
            None
        }
    }
}

pub fn client(url: &str) -> RegistryClient {
    let mut settings = Config::defaults().schema_registry;
    settings.url = SecretUrl::new(url);
    RegistryClient::new(&settings).unwrap()
}

/// Registers a schema in a subject; gives its id.
pub async fn register(url: &str, subject: &str, format: Format, schema: &str) -> u32 {
    let subject = Subject { name: subject.to_owned(), format, schema: schema.to_owned() };
    subjects::register(&client(url), &subject).await.unwrap()
}

/// What a proxy does to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Passes them on.
    None,
    /// Closes the connection.
    Down,
    /// Answers with this status, type and body.
    Answer(u16, &'static str, &'static str),
    /// Begins an answer and never ends it.
    Slow,
    /// Passes them on if they bring this token.
    Bearer(&'static str),
    /// Passes them on, those for a schema by its GUID as if they were for the schema of this id: the real registry of our
    /// tests knows no GUIDs.
    GuidIs(u32),
}

/// A proxy in front of a registry.
pub struct Proxy {
    pub url: String,
    fault: Arc<Mutex<Fault>>,
    requests: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(registry: &str) -> Proxy {
        let upstream = registry.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (fault, requests) = (Arc::new(Mutex::new(Fault::None)), Arc::new(AtomicUsize::new(0)));
        let proxy = Proxy { url, fault: Arc::clone(&fault), requests: Arc::clone(&requests) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (fault, upstream) = (*fault.lock().unwrap(), upstream.clone());
                requests.fetch_add(1, Ordering::Relaxed);
                // A client that goes away in the middle is its own affair.
                tokio::spawn(async move { serve(stream, &upstream, fault).await.ok() });
            }
        });
        proxy
    }

    pub fn inject(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// One request per connection.
async fn serve(mut client: TcpStream, upstream: &str, fault: Fault) -> std::io::Result<()> {
    if fault == Fault::Down {
        return Ok(());
    }
    let mut request = Vec::new();
    let head = loop {
        let mut chunk = [0; 4096];
        let read = client.read(&mut chunk).await?;
        request.extend_from_slice(&chunk[..read]);
        let end = request.windows(4).position(|window| window == b"\r\n\r\n");
        match end {
            Some(end) => break String::from_utf8_lossy(&request[..end]).into_owned(),
            None if read == 0 => return Ok(()),
            None => {}
        }
    };
    let answer = |status: u16, kind: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status} Spoiled\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    };
    match fault {
        Fault::Answer(status, kind, body) => return client.write_all(answer(status, kind, body).as_bytes()).await,
        Fault::Slow => {
            client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"schema\":").await?;
            client.read_to_end(&mut Vec::new()).await?; // until the client gives up
            return Ok(());
        }
        Fault::Bearer(token) if !head.to_ascii_lowercase().contains(&format!("authorization: bearer {token}")) => {
            return client.write_all(answer(401, "text/plain", "who are you").as_bytes()).await;
        }
        _ => {}
    }
    let rest = request.split_off(head.len());
    let head = match (fault, head.split_once("/schemas/guids/")) {
        (Fault::GuidIs(id), Some((before, after))) => {
            let after = after.split_once(' ').map_or("", |(_, after)| after);
            format!("{before}/schemas/ids/{id} {after}")
        }
        _ => head,
    };
    let mut registry = TcpStream::connect(upstream).await?;
    registry.write_all(head.as_bytes()).await?;
    registry.write_all(b"\r\nconnection: close").await?;
    registry.write_all(&rest).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_registry, mut to_registry) = registry.split();
    tokio::select! {
        copied = copy(&mut from_registry, &mut to_client) => copied.map(drop),
        copied = async { copy(&mut from_client, &mut to_registry).await?; std::future::pending().await } => copied,
    }
}

/// A record's value in Confluent's wire format.
pub fn framed(id: u32, body: Vec<u8>) -> Vec<u8> {
    get_payload(id, body)
}

/// An event as Avro; `branch` is its place where the schema is a union.
pub fn avro_body(schema: &Schema, branch: Option<u32>, event: &Value) -> Vec<u8> {
    let value = match (schema, branch) {
        (Schema::Union(union), Some(branch)) => {
            Avro::Union(branch, Box::new(avro(&union.variants()[branch as usize], event)))
        }
        (schema, _) => avro(schema, event),
    };
    GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap()
}

/// JSON in our normal form as the Avro value that a schema wants.
fn avro(schema: &Schema, value: &Value) -> Avro {
    let text = || value.as_str().unwrap();
    let time = || text().parse::<jiff::Timestamp>().unwrap();
    match schema {
        Schema::Record(record) => {
            let field = |field: &apache_avro::schema::RecordField| {
                (field.name.clone(), avro(&field.schema, value.get(&field.name).unwrap_or(&Value::Null)))
            };
            Avro::Record(record.fields.iter().map(field).collect())
        }
        Schema::Array(array) => {
            Avro::Array(value.as_array().unwrap().iter().map(|entry| avro(&array.items, entry)).collect())
        }
        Schema::Union(_) if value.is_null() => Avro::Union(0, Box::new(Avro::Null)),
        Schema::Union(union) => Avro::Union(1, Box::new(avro(&union.variants()[1], value))),
        Schema::String => Avro::String(text().to_owned()),
        Schema::Long => Avro::Long(value.as_i64().unwrap_or(7)),
        Schema::TimestampMicros => Avro::TimestampMicros(time().as_microsecond()),
        Schema::TimestampMillis => Avro::TimestampMillis(time().as_millisecond()),
        Schema::Decimal(decimal) => {
            let number = Decimal::parse(text()).unwrap().round_half_even(decimal.scale as u8).unwrap();
            Avro::Decimal(apache_avro::Decimal::from(number.mantissa().to_be_bytes()))
        }
        other => panic!("no test event has a {other:?}"),
    }
}
