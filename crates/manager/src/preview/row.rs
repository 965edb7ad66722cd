//! A record as people see it: read once and written once, whoever watches.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::keys::{self, Fields};
use super::{Columns, Output};
use crate::catalog::{Format, exact_numbers};
use crate::hub::PushText;
use crate::ports::{PortError, RawHeader, RawHeaders, RawRecord, Schemas};

/// How a value is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// JSON, as it was written.
    Json,
    /// JSON of an Avro value, by the registry.
    Avro,
    /// Text that is no JSON.
    Text,
    /// Bytes that are no text.
    Base64,
    /// There is no value: a deletion, for whoever keeps rows by key.
    Tombstone,
    /// It is larger than what is shown.
    TooLarge,
}

impl Shape {
    /// Its name in a row's `format`.
    pub const fn name(self) -> &'static str {
        match self {
            Shape::Json => "json",
            Shape::Avro => "avro",
            Shape::Text => "text",
            Shape::Base64 => "base64",
            Shape::Tombstone => "tombstone",
            Shape::TooLarge => "tooLarge",
        }
    }
}

/// A record, read.
#[derive(Debug)]
pub struct Shown {
    /// How its value is shown.
    pub shape: Shape,
    json: String,
    value: Range<usize>,
    key: Option<Key>,
    push: OnceLock<PushText>,
    output: Option<Arc<Output>>,
}

/// Where the key stands in the JSON, and how.
#[derive(Debug)]
struct Key {
    json: Range<usize>,
    format: &'static str,
    /// Its bytes, where what is shown is what they say by a schema.
    bytes: Option<Vec<u8>>,
}

impl Shown {
    /// The same, as what it is known to be: by that those who watch read it.
    pub(super) fn under(self, output: Arc<Output>) -> Shown {
        Shown { output: Some(output), ..self }
    }

    /// What it was known to be when it came.
    pub(super) fn output(&self) -> Option<&Arc<Output>> {
        self.output.as_ref()
    }

    /// `{"partition":0,"offset":7,"timestamp":"…","key":"…","keyFormat":"text","headers":[…],"schemaId":3,"format":"json","value":…}`
    /// on one line. A key is a text whatever its format (`text`, `avro`, `base64`, `tooLarge`): of one in Avro that of a JSON
    /// object. `headers`, if it has any, are `{"name":…,"text":…}` or `{"name":…,"base64":…}`, or only a name where there is no
    /// value, with `bytes` where the value is cut and `moreHeaders` where there are more than are shown. `schemaId` (and
    /// `keySchemaId`) is there where the registry was asked about a frame.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The value alone, as JSON.
    pub fn value(&self) -> &str {
        &self.json[self.value.clone()]
    }

    /// The bytes of the key, if there is one that is not too large.
    pub(super) fn key(&self) -> Option<Vec<u8>> {
        let Key { json, format, bytes } = self.key.as_ref()?;
        if bytes.is_some() {
            return bytes.clone();
        }
        let text: String = serde_json::from_str(&self.json[json.clone()]).ok()?;
        if *format == Shape::Text.name() { Some(text.into_bytes()) } else { BASE64.decode(text).ok() }
    }

    /// The fields of a key that was read by its schema. A number of eight bytes may seem to be such a key.
    pub(super) fn key_by_schema(&self) -> Option<Fields> {
        let Key { json, bytes, .. } = self.key.as_ref()?;
        bytes.as_ref()?;
        let text: String = serde_json::from_str(&self.json[json.clone()]).ok()?;
        keys::fields(text.as_bytes())
    }

    /// The key as it is shown, as JSON.
    pub(super) fn key_json(&self) -> Option<&str> {
        self.key.as_ref().map(|key| &self.json[key.json.clone()])
    }

    /// The value as `ReceiveMessage` takes it: JSON as it is, with the columns that stand in the key; text without quotes; what
    /// is neither as an object that says so. Written once, by `columns` of whoever asks first: all who watch have those of what
    /// the row was known to be.
    pub fn push(&self, columns: &mut Columns) -> &PushText {
        self.push.get_or_init(|| {
            let text = columns.object(self).unwrap_or_else(|| match self.shape {
                Shape::Json | Shape::Avro | Shape::Tombstone => self.value().to_owned(),
                Shape::Text => serde_json::from_str(self.value()).unwrap_or_else(|_| self.value().to_owned()),
                Shape::Base64 | Shape::TooLarge => format!("{{\"{}\":{}}}", self.shape.name(), self.value()),
            });
            PushText::new("ReceiveMessage", &text)
        })
    }

    /// How much memory it takes, about.
    pub fn bytes(&self) -> usize {
        // Pushed, it is written once more.
        self.json.len() * 2 + 256
    }
}

struct Value {
    shape: Shape,
    json: String,
    error: Option<String>,
    /// Id of the schema that its frame names.
    schema: Option<u32>,
}

/// Reads a record. Whatever cannot be read by its schema is shown as bytes, with the reason.
pub async fn show(record: &RawRecord, schemas: Option<&dyn Schemas>, most_bytes: usize) -> Shown {
    let value = value(record.value.as_deref(), schemas, most_bytes).await;
    let mut json = format!("{{\"partition\":{},\"offset\":{}", record.partition, record.offset);
    let time = record.timestamp_ms.and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let add = |json: &mut String, text: std::fmt::Arguments<'_>| json.write_fmt(text).is_ok();
    if let Some(time) = time {
        add(&mut json, format_args!(",\"timestamp\":\"{time}\""));
    }
    let mut key = None;
    if let Some(bytes) = &record.key {
        let read = key_by_schema(bytes, schemas, most_bytes).await;
        let raw = read.is_some().then(|| bytes.clone());
        let (format, text) = read.unwrap_or_else(|| key_text(bytes, most_bytes));
        let start = json.len() + ",\"key\":".len();
        key = Some(Key { json: start..start + text.len(), format, bytes: raw });
        add(&mut json, format_args!(",\"key\":{text},\"keyFormat\":\"{format}\""));
        if let Some(id) = framed_by(bytes).filter(|_| format == Shape::Avro.name()) {
            add(&mut json, format_args!(",\"keySchemaId\":{id}"));
        }
    }
    json.push_str(&headers(&record.headers));
    if let Some(id) = value.schema {
        add(&mut json, format_args!(",\"schemaId\":{id}"));
    }
    if let Some(error) = value.error {
        add(&mut json, format_args!(",\"error\":{}", quoted(&error)));
    }
    add(&mut json, format_args!(",\"format\":\"{}\",\"value\":", value.shape.name()));
    let start = json.len();
    json.push_str(&value.json);
    let end = json.len();
    json.push('}');
    Shown { shape: value.shape, json, value: start..end, key, push: OnceLock::new(), output: None }
}

async fn value(value: Option<&[u8]>, schemas: Option<&dyn Schemas>, most_bytes: usize) -> Value {
    let plain = |shape, json| Value { shape, json, error: None, schema: None };
    let Some(bytes) = value else { return plain(Shape::Tombstone, "null".to_owned()) };
    if bytes.len() > most_bytes {
        return plain(Shape::TooLarge, format!("{{\"bytes\":{}}}", bytes.len()));
    }
    // Frames begin with a zero byte, and nothing else that people would read does.
    if let (Some(0), Some(schemas)) = (bytes.first(), schemas) {
        match schemas.decode(bytes).await {
            Ok(Some(decoded)) => {
                let shape = match decoded.format {
                    Format::Avro => Shape::Avro,
                    Format::Json | Format::JsonSchema | Format::View => Shape::Json,
                };
                return Value { schema: framed_by(bytes), ..plain(shape, on_one_line(decoded.json)) };
            }
            Ok(None) => {}
            Err(PortError::Unavailable(why) | PortError::Refused(why) | PortError::NoTopic(why)) => {
                return Value {
                    shape: Shape::Base64,
                    json: encoded(bytes),
                    error: Some(why),
                    schema: framed_by(bytes),
                };
            }
        }
    }
    match (serde_json::from_slice::<&RawValue>(bytes), std::str::from_utf8(bytes)) {
        (Ok(json), _) => plain(Shape::Json, on_one_line(exact_numbers(json.get()).into_owned())),
        (Err(_), Ok(text)) => plain(Shape::Text, quoted(text)),
        (Err(_), Err(_)) => plain(Shape::Base64, encoded(bytes)),
    }
}

/// The fields of a key in Avro, as the text of a JSON object: as Flink writes keys where values are Avro. What is none may begin
/// with a zero byte, too: it is shown as it is, and no fault.
async fn key_by_schema(key: &[u8], schemas: Option<&dyn Schemas>, most_bytes: usize) -> Option<(&'static str, String)> {
    let schemas = schemas.filter(|_| key.first() == Some(&0) && key.len() <= most_bytes)?;
    let decoded = schemas.decode(key).await.ok()??;
    let is_object = decoded.format == Format::Avro && decoded.json.starts_with('{');
    is_object.then(|| (Shape::Avro.name(), quoted(&decoded.json)))
}

/// The id in Confluent's framing: a zero byte, then four of the id.
fn framed_by(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [0, id @ ..] => id.first_chunk().map(|id| u32::from_be_bytes(*id)),
        _ => None,
    }
}

/// `,"headers":[…]`, or nothing where there are none.
fn headers(headers: &RawHeaders) -> String {
    if headers.shown.is_empty() {
        return String::new();
    }
    let shown: Vec<String> = headers.shown.iter().map(header).collect();
    let more = if headers.more > 0 { format!(",\"moreHeaders\":{}", headers.more) } else { String::new() };
    format!(",\"headers\":[{}]{more}", shown.join(","))
}

fn header(header: &RawHeader) -> String {
    let name = quoted(&header.name);
    let Some(value) = &header.value else { return format!("{{\"name\":{name}}}") };
    let is_cut = value.len() < header.bytes;
    // A letter that the cut went through is left out.
    let text = match std::str::from_utf8(value) {
        Ok(text) => Some(text),
        Err(error) if is_cut && error.error_len().is_none() => std::str::from_utf8(&value[..error.valid_up_to()]).ok(),
        Err(_) => None,
    };
    let shown =
        text.map_or_else(|| format!("\"base64\":{}", encoded(value)), |text| format!("\"text\":{}", quoted(text)));
    let cut = if is_cut { format!(",\"bytes\":{}", header.bytes) } else { String::new() };
    format!("{{\"name\":{name},{shown}{cut}}}")
}

fn key_text(key: &[u8], most_bytes: usize) -> (&'static str, String) {
    match std::str::from_utf8(key) {
        _ if key.len() > most_bytes => (Shape::TooLarge.name(), "null".to_owned()),
        Ok(text) => (Shape::Text.name(), quoted(text)),
        Err(_) => (Shape::Base64.name(), encoded(key)),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn encoded(bytes: &[u8]) -> String {
    format!("\"{}\"", BASE64.encode(bytes))
}

/// JSON has line breaks only between its tokens, where a space does as well.
fn on_one_line(json: String) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Decoded;

    struct Registry;

    #[async_trait::async_trait]
    impl Schemas for Registry {
        async fn columns_of(&self, _: &str) -> Result<Option<(Format, Vec<crate::catalog::Column>)>, PortError> {
            Ok(None)
        }

        async fn decode(&self, value: &[u8]) -> Result<Option<Decoded>, PortError> {
            match value.get(4) {
                Some(1) => Ok(Some(Decoded { format: Format::Avro, json: r#"{"a":"1.50"}"#.to_owned() })),
                Some(2) => Err(PortError::Refused("schema 2 is PROTOBUF".to_owned())),
                _ => Ok(None),
            }
        }
    }

    async fn shown(value: Option<&[u8]>) -> (Shape, String) {
        let record = RawRecord {
            partition: 0,
            offset: 7,
            timestamp_ms: Some(0),
            key: Some(b"k".to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: RawHeaders::default(),
        };
        let shown = show(&record, Some(&Registry), 64).await;
        let whole: serde_json::Value = serde_json::from_str(shown.json()).expect("JSON");
        assert_eq!(whole["format"], shown.shape.name());
        assert_eq!((&whole["timestamp"], &whole["key"]), (&"1970-01-01T00:00:00Z".into(), &"k".into()));
        (shown.shape, shown.value().to_owned())
    }

    #[tokio::test]
    async fn a_value_says_how_it_is_shown() {
        let cases: [(Option<&[u8]>, Shape, &str); 9] = [
            (Some(b"{\"a\":\n 1}"), Shape::Json, "{\"a\":  1}"),
            (Some(b"9007199254740993"), Shape::Json, "\"9007199254740993\""),
            (Some(b"<script>\"x\""), Shape::Text, "\"<script>\\\"x\\\"\""),
            (Some(&[0, 0, 0, 0, 1, 9]), Shape::Avro, "{\"a\":\"1.50\"}"),
            (Some(&[0, 0, 0, 0, 2, 9]), Shape::Base64, "\"AAAAAAIJ\""),
            (Some(&[0xff, 0]), Shape::Base64, "\"/wA=\""),
            (Some(&[b'1'; 65]), Shape::TooLarge, "{\"bytes\":65}"),
            (None, Shape::Tombstone, "null"),
            (Some(b""), Shape::Text, "\"\""),
        ];
        for (value, shape, json) in cases {
            assert_eq!(shown(value).await, (shape, json.to_owned()), "{value:?}");
        }
    }

    #[tokio::test]
    async fn a_key_in_avro_is_shown_as_its_fields_and_all_others_as_they_are() {
        for (key, format, text) in [
            (&[0, 0, 0, 0, 1, 9][..], "avro", r#"{"a":"1.50"}"#),
            (&[0, 0, 0, 0, 2, 9], "text", "\0\0\0\0\u{2}\t"),
            (&[0, 0, 0, 0, 3, 9], "text", "\0\0\0\0\u{3}\t"),
            (&[0xff, 0, 0, 0, 1], "base64", "/wAAAAE="),
        ] {
            let key = Some(key.to_vec());
            let bytes = key.clone();
            let record = RawRecord {
                partition: 0,
                offset: 0,
                timestamp_ms: None,
                key,
                value: None,
                headers: RawHeaders::default(),
            };
            let shown = show(&record, Some(&Registry), 64).await;
            let whole: serde_json::Value = serde_json::from_str(shown.json()).expect("JSON");
            assert_eq!((&whole["keyFormat"], &whole["key"]), (&format.into(), &text.into()), "{bytes:?}");
            assert_eq!(shown.key(), bytes, "whatever it is shown as");
            assert!(whole.get("error").is_none(), "{whole}");
        }
    }

    async fn whole(key: Option<&[u8]>, value: &[u8], headers: RawHeaders) -> serde_json::Value {
        let (key, value) = (key.map(<[u8]>::to_vec), Some(value.to_vec()));
        let record = RawRecord { partition: 0, offset: 0, timestamp_ms: None, key, value, headers };
        serde_json::from_str(show(&record, Some(&Registry), 64).await.json()).expect("JSON")
    }

    #[tokio::test]
    async fn headers_are_shown_in_their_order_and_within_bounds() {
        let mut headers = RawHeaders::default();
        headers.add("source", Some(b"shop \"1\""));
        headers.add("source", Some(&[0xff]));
        headers.add("none", None);
        let of = whole(None, b"{}", headers).await;
        let expected = serde_json::json!([
            { "name": "source", "text": "shop \"1\"" }, { "name": "source", "base64": "/w==" }, { "name": "none" }
        ]);
        assert_eq!((&of["headers"], of.get("moreHeaders")), (&expected, None));
        assert!(whole(None, b"{}", RawHeaders::default()).await.get("headers").is_none());

        // As much as may be is whole; one more is cut, and never within a letter.
        let mut headers = RawHeaders::default();
        let (edge, over) = ("a".repeat(RawHeaders::MOST_VALUE_BYTES), format!("a{}", "ü".repeat(300)));
        headers.add(&"n".repeat(RawHeaders::MOST_NAME_BYTES + 1), Some(edge.as_bytes()));
        headers.add("over", Some(over.as_bytes()));
        (2..RawHeaders::MOST + 3).for_each(|number| headers.add("more", Some(number.to_string().as_bytes())));
        assert!(headers.held() < RawHeaders::MOST * (RawHeaders::MOST_NAME_BYTES + RawHeaders::MOST_VALUE_BYTES));
        let of = whole(None, b"{}", headers).await;
        assert_eq!((of["headers"].as_array().map(Vec::len), &of["moreHeaders"]), (Some(32), &3.into()));
        assert_eq!(of["headers"][0], serde_json::json!({ "name": "n".repeat(128), "text": edge }));
        assert_eq!(
            of["headers"][1],
            serde_json::json!({ "name": "over", "text": format!("a{}", "ü".repeat(255)), "bytes": 601 })
        );
    }

    #[tokio::test]
    async fn the_schema_of_a_frame_is_named_where_the_registry_knows_of_it() {
        let none = RawHeaders::default;
        let avro = whole(Some(&[0, 0, 0, 0, 1, 9]), &[0, 0, 0, 0, 1, 9], none()).await;
        assert_eq!((&avro["schemaId"], &avro["keySchemaId"]), (&1.into(), &1.into()));
        let unreadable = whole(Some(b"k"), &[0, 0, 0, 0, 2, 9], none()).await;
        assert_eq!((&unreadable["schemaId"], unreadable.get("keySchemaId")), (&2.into(), None));
        for value in [&b"{}"[..], &[0, 0, 0, 0, 3, 9], &[0, 0, 1]] {
            assert_eq!(whole(None, value, none()).await.get("schemaId"), None, "{value:?} is no frame");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_by_its_schema_says_why() {
        let value = Some(vec![0, 0, 0, 0, 2]);
        let record =
            RawRecord { partition: 0, offset: 0, timestamp_ms: None, key: None, value, headers: RawHeaders::default() };
        let shown = show(&record, Some(&Registry), 64).await;
        assert!(shown.json().contains("\"error\":\"schema 2 is PROTOBUF\""), "{}", shown.json());
        let pushed = shown.push(&mut Columns::new(None)).as_str();
        assert!(pushed.contains(r#"{\"base64\":\"AAAAAAI=\"}"#), "{pushed}");
    }
}
