//! The headers of a dead letter on its topic: ours, and those of Spring and Kafka Connect, written and read. Pure.
//!
//! What is read may come from any of the three: a record that another tool put on the topic tells where it came from,
//! too.

use jiff::Timestamp;

use crate::domain::record::{Headers, Record};
use crate::domain::units::Millis;

/// A dead letter on its way to the DLQ topic.
#[derive(Debug)]
pub struct Unpublished {
    /// Row id.
    pub id: i64,
    /// Source topic.
    pub topic: String,
    /// Source partition.
    pub partition: i32,
    /// Source offset.
    pub offset: i64,
    /// Record timestamp.
    pub timestamp_ms: Option<Millis>,
    /// Stable reason.
    pub reason: String,
    /// Sentence.
    pub error: String,
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes.
    pub payload: Option<Vec<u8>>,
    /// Encoded headers.
    pub headers: Vec<u8>,
    /// When it was refused.
    pub created_at: Timestamp,
}

/// A header as it is published.
pub type Header = (String, Option<Vec<u8>>);

/// A header as it is read.
type Seen<'h> = (&'h str, Option<&'h [u8]>);

/// First of the headers that we add behind the original ones.
const FIRST_OF_OURS: &str = "x-dlq-reason";
/// Names that other tools add, by prefix. `retry_topic-` and `springDeserializerException` are Spring's too.
const SPRING: [&str; 3] = ["kafka_dlt-", "retry_topic-", "springDeserializerException"];
const CONNECT: &str = "__connect.errors.";

/// How much of a letter goes to the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// All of it.
    Whole,
    /// Its value stays in the table.
    WithoutValue,
    /// Its value, its key and its original headers stay in the table.
    Pointer,
}

/// The original headers, ours, and those that Spring's and Kafka Connect's tools look for.
pub fn headers_of(view: &str, letter: &Unpublished, left: Left) -> Vec<Header> {
    let original = if left == Left::Pointer { &[][..] } else { &letter.headers };
    let original = Headers::from_encoded(original).iter();
    let mut headers: Vec<_> = original.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect();
    let (partition, offset) = (letter.partition.to_string(), letter.offset.to_string());
    headers.extend([
        text(FIRST_OF_OURS, &letter.reason),
        text("x-dlq-error", &letter.error),
        text("x-dlq-view", view),
        text("x-dlq-at", &letter.created_at.to_string()),
        text("x-original-topic", &letter.topic),
        text("x-original-partition", &partition),
        text("x-original-offset", &offset),
        text("kafka_dlt-original-topic", &letter.topic),
        bytes("kafka_dlt-original-partition", &letter.partition.to_be_bytes()),
        bytes("kafka_dlt-original-offset", &letter.offset.to_be_bytes()),
        text("kafka_dlt-exception-message", &letter.error),
        text("__connect.errors.topic", &letter.topic),
        text("__connect.errors.partition", &partition),
        text("__connect.errors.offset", &offset),
        text("__connect.errors.connector.name", view),
        text("__connect.errors.exception.message", &letter.error),
    ]);
    if let Some(Millis(timestamp_ms)) = letter.timestamp_ms {
        headers.push(text("x-original-timestamp", &timestamp_ms.to_string()));
        headers.push(bytes("kafka_dlt-original-timestamp", &timestamp_ms.to_be_bytes()));
    }
    if left != Left::Whole {
        let payload = letter.payload.as_deref().unwrap_or_default();
        let what = if left == Left::Pointer { "key, headers and value omitted" } else { "omitted" };
        let (length, crc) = (payload.len(), crc32fast::hash(payload));
        let omitted = format!("{what}; {length} bytes, crc32 {crc:08x}; see dead_letters.id {}", letter.id);
        headers.push(text("x-dlq-payload", &omitted));
    }
    headers
}

fn text(name: &str, value: &str) -> Header {
    bytes(name, value.as_bytes())
}

fn bytes(name: &str, value: &[u8]) -> Header {
    (name.to_owned(), Some(value.to_vec()))
}

/// Whose headers tell where a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// This service.
    StreamView,
    /// Spring's `DeadLetterPublishingRecoverer`.
    Spring,
    /// Kafka Connect's dead letter queue.
    Connect,
}

/// A record of a DLQ topic, told apart into what it was and what was said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLetter<'a> {
    /// Who put it there.
    pub writer: Writer,
    /// Topic it was refused from.
    pub topic: String,
    /// Partition there.
    pub partition: i32,
    /// Offset there.
    pub offset: i64,
    /// Timestamp there, in milliseconds, if it is told. Connect does not.
    pub timestamp_ms: Option<Millis>,
    /// Why it was refused, as a name: our reason, or the class of an exception.
    pub reason: Option<String>,
    /// Likewise as a sentence.
    pub error: Option<String>,
    /// Which of our views refused it.
    pub view: Option<String>,
    /// When, if one of ours did.
    pub at: Option<Timestamp>,
    /// Original key.
    pub key: Option<&'a [u8]>,
    /// Original value. `None` also where it was too large for the topic: see `omitted`.
    pub payload: Option<&'a [u8]>,
    /// Original headers in stored form.
    pub headers: Vec<u8>,
    /// Set if the value was left out, or more than that: where it is.
    pub omitted: Option<String>,
}

/// Reads a record of a DLQ topic; `None` if its headers do not tell topic, partition and offset.
///
/// | headers | origin | what is stripped |
/// |---|---|---|
/// | ours | the last block of them | that block; what stands before it is the original's, whatever its name |
/// | Spring's | the first of each: with several hops that is the first topic | every header of Spring or Connect |
/// | Connect's | the last of each | every header of Spring or Connect |
pub fn read<'a>(record: &Record<'a>) -> Option<ReadLetter<'a>> {
    let all: Vec<Seen<'_>> = record.headers.iter().collect();
    ours(record, &all).or_else(|| spring(record, &all)).or_else(|| connect(record, &all))
}

fn ours<'a>(record: &Record<'a>, all: &[Seen<'_>]) -> Option<ReadLetter<'a>> {
    let start = all.iter().rposition(|(name, _)| *name == FIRST_OF_OURS)?;
    let (original, block) = all.split_at(start);
    let value = |name| find(block.iter(), name).and_then(utf8);
    Some(ReadLetter {
        writer: Writer::StreamView,
        topic: value("x-original-topic")?,
        partition: value("x-original-partition")?.parse().ok()?,
        offset: value("x-original-offset")?.parse().ok()?,
        timestamp_ms: value("x-original-timestamp").and_then(|text| text.parse().ok()).map(Millis),
        reason: value(FIRST_OF_OURS),
        error: value("x-dlq-error"),
        view: value("x-dlq-view"),
        at: value("x-dlq-at").and_then(|text| text.parse().ok()),
        key: record.key,
        payload: record.payload,
        headers: encode(original.iter()),
        omitted: value("x-dlq-payload"),
    })
}

fn spring<'a>(record: &Record<'a>, all: &[Seen<'_>]) -> Option<ReadLetter<'a>> {
    let first = |name| find(all.iter(), name);
    // The last exception is why it is here.
    let last = |name| find(all.iter().rev(), name).and_then(utf8);
    let partition = whole(first("kafka_dlt-original-partition")?)?;
    Some(ReadLetter {
        writer: Writer::Spring,
        topic: utf8(first("kafka_dlt-original-topic")?)?,
        partition: i32::try_from(partition).ok()?,
        offset: whole(first("kafka_dlt-original-offset")?)?,
        timestamp_ms: first("kafka_dlt-original-timestamp").and_then(whole).map(Millis),
        reason: last("kafka_dlt-exception-cause-fqcn").or_else(|| last("kafka_dlt-exception-fqcn")),
        error: last("kafka_dlt-exception-message"),
        view: None,
        at: None,
        key: record.key,
        payload: record.payload,
        headers: encode(all.iter().filter(|(name, _)| !is_of_a_tool(name))),
        omitted: None,
    })
}

fn connect<'a>(record: &Record<'a>, all: &[Seen<'_>]) -> Option<ReadLetter<'a>> {
    let value = |name: &str| find(all.iter().rev(), &format!("{CONNECT}{name}")).and_then(utf8);
    Some(ReadLetter {
        writer: Writer::Connect,
        topic: value("topic")?,
        partition: value("partition")?.parse().ok().filter(|partition| *partition >= 0)?,
        offset: value("offset")?.parse().ok().filter(|offset| *offset >= 0)?,
        timestamp_ms: None,
        reason: value("exception.class.name"),
        error: value("exception.message"),
        view: None,
        at: None,
        key: record.key,
        payload: record.payload,
        headers: encode(all.iter().filter(|(name, _)| !is_of_a_tool(name))),
        omitted: None,
    })
}

fn is_of_a_tool(name: &str) -> bool {
    name.starts_with(CONNECT) || SPRING.iter().any(|prefix| name.starts_with(prefix))
}

fn find<'h>(mut headers: impl Iterator<Item = &'h Seen<'h>>, name: &str) -> Option<&'h [u8]> {
    headers.find(|(header, _)| *header == name).and_then(|(_, value)| *value)
}

fn utf8(value: &[u8]) -> Option<String> {
    std::str::from_utf8(value).ok().map(str::to_owned)
}

/// A whole number of at least 0 as Spring writes it: 4 or 8 bytes, big-endian; or as a decimal, as some mappers make it.
fn whole(value: &[u8]) -> Option<i64> {
    let number = if let Ok(bytes) = <[u8; 4]>::try_from(value) {
        i64::from(i32::from_be_bytes(bytes))
    } else if let Ok(bytes) = <[u8; 8]>::try_from(value) {
        i64::from_be_bytes(bytes)
    } else {
        std::str::from_utf8(value).ok()?.parse().ok()?
    };
    (number >= 0).then_some(number)
}

fn encode<'h>(headers: impl Iterator<Item = &'h Seen<'h>>) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in headers {
        Headers::push(&mut encoded, name.as_bytes(), *value);
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::{Offset, Partition};

    fn encoded(headers: &[Seen<'_>]) -> Vec<u8> {
        encode(headers.iter())
    }

    fn record<'a>(headers: &'a [u8], payload: Option<&'a [u8]>) -> Record<'a> {
        Record {
            partition: Partition(0),
            offset: Offset(99),
            timestamp_ms: Some(Millis(1)),
            key: Some(b"o-1"),
            payload,
            headers: Headers::from_encoded(headers),
        }
    }

    fn letter(headers: &[Seen<'_>], timestamp_ms: Option<Millis>) -> Unpublished {
        Unpublished {
            id: 7,
            topic: "orders.events".into(),
            partition: 3,
            offset: 1 << 40,
            timestamp_ms,
            reason: "invalid_json".into(),
            error: "expected `,` – line 1".into(),
            key: Some(b"o-1".to_vec()),
            payload: Some(b"{".to_vec()),
            headers: encoded(headers),
            created_at: jiff::Timestamp::from_microsecond(1_700_000_000_123_456).unwrap(),
        }
    }

    #[test]
    fn what_the_relay_writes_is_read_back_exactly() {
        let plain: &[Seen<'_>] = &[("x-sequence", Some(b"3")), ("empty", None), ("x-sequence", Some(b"3"))];
        // A record that has been a dead letter before, and was published again with all its headers.
        let second_time: &[Seen<'_>] = &[
            ("x-sequence", Some(b"3")),
            ("x-dlq-reason", Some(b"missing_type")),
            ("x-original-offset", Some(b"5")),
            ("kafka_dlt-original-offset", Some(&[0; 8])),
            ("__connect.errors.topic", Some(b"other")),
        ];
        for original in [plain, second_time, &[]] {
            for timestamp_ms in [Some(Millis(1_700_000_000_123)), None] {
                let letter = letter(original, timestamp_ms);
                let published = headers_of("orders", &letter, Left::Whole);
                let published: Vec<_> = published.iter().map(|(name, v)| (name.as_str(), v.as_deref())).collect();
                let on_topic = encoded(&published);
                let read = read(&record(&on_topic, Some(b"{"))).unwrap();
                let expected = ReadLetter {
                    writer: Writer::StreamView,
                    topic: letter.topic.clone(),
                    partition: letter.partition,
                    offset: letter.offset,
                    timestamp_ms,
                    reason: Some(letter.reason.clone()),
                    error: Some(letter.error.clone()),
                    view: Some("orders".into()),
                    at: Some(letter.created_at),
                    key: Some(b"o-1"),
                    payload: Some(b"{"),
                    headers: letter.headers.clone(),
                    omitted: None,
                };
                assert_eq!(read, expected);
            }
        }
    }

    #[test]
    fn a_payload_left_out_is_told() {
        let original: &[Seen<'_>] = &[("x-sequence", Some(b"3"))];
        let without_value = (Left::WithoutValue, encoded(original), "omitted");
        for (left, expected, what) in [without_value, (Left::Pointer, Vec::new(), "key, headers and value omitted")] {
            let published = headers_of("orders", &letter(original, None), left);
            let published: Vec<_> = published.iter().map(|(name, v)| (name.as_str(), v.as_deref())).collect();
            let on_topic = encoded(&published);
            let read = read(&record(&on_topic, None)).unwrap();
            let omitted = read.omitted.unwrap();
            assert_eq!(omitted, format!("{what}; 1 bytes, crc32 15d54739; see dead_letters.id 7"));
            assert_eq!((read.payload, read.headers), (None, expected));
        }
    }

    #[test]
    fn springs_records_are_understood() {
        let (partition, offset, timestamp) =
            (2_i32.to_be_bytes(), 4_711_i64.to_be_bytes(), 1_700_000_000_123_i64.to_be_bytes());
        let hop = 9_i64.to_be_bytes();
        let on_topic = encoded(&[
            ("x-sequence", Some(b"3")),
            ("kafka_dlt-exception-fqcn", Some(b"org.springframework.kafka.listener.ListenerExecutionFailedException")),
            ("kafka_dlt-exception-cause-fqcn", Some(b"java.lang.IllegalStateException")),
            ("kafka_dlt-exception-message", Some(b"Listener failed; no such customer")),
            ("kafka_dlt-exception-stacktrace", Some(b"at ...")),
            ("kafka_dlt-original-topic", Some(b"orders.events")),
            ("kafka_dlt-original-partition", Some(&partition)),
            ("kafka_dlt-original-offset", Some(&offset)),
            ("kafka_dlt-original-timestamp", Some(&timestamp)),
            ("kafka_dlt-original-timestamp-type", Some(b"CreateTime")),
            ("kafka_dlt-original-consumer-group", Some(b"billing")),
            ("retry_topic-attempts", Some(&[0, 0, 0, 3])),
            // The second hop, from a retry topic.
            ("kafka_dlt-original-topic", Some(b"orders.events-retry-0")),
            ("kafka_dlt-original-offset", Some(&hop)),
            ("traceparent", Some(b"00-1")),
        ]);
        let read = read(&record(&on_topic, Some(b"{}"))).unwrap();
        assert_eq!((read.writer, read.topic.as_str()), (Writer::Spring, "orders.events"));
        assert_eq!((read.partition, read.offset, read.timestamp_ms), (2, 4_711, Some(Millis(1_700_000_000_123))));
        assert_eq!(read.reason.as_deref(), Some("java.lang.IllegalStateException"));
        assert_eq!(read.error.as_deref(), Some("Listener failed; no such customer"));
        assert_eq!(read.headers, encoded(&[("x-sequence", Some(b"3")), ("traceparent", Some(b"00-1"))]));
        assert_eq!((read.key, read.payload), (Some(b"o-1".as_slice()), Some(b"{}".as_slice())));
    }

    #[test]
    fn connects_records_are_understood() {
        let on_topic = encoded(&[
            ("x-sequence", Some(b"3")),
            ("__connect.errors.topic", Some(b"orders.events")),
            ("__connect.errors.partition", Some(b"2")),
            ("__connect.errors.offset", Some(b"4711")),
            ("__connect.errors.connector.name", Some(b"sink")),
            ("__connect.errors.task.id", Some(b"0")),
            ("__connect.errors.stage", Some(b"VALUE_CONVERTER")),
            ("__connect.errors.class.name", Some(b"org.apache.kafka.connect.json.JsonConverter")),
            ("__connect.errors.exception.class.name", Some(b"org.apache.kafka.connect.errors.DataException")),
            ("__connect.errors.exception.message", Some(b"Converting byte[] to Kafka Connect data failed")),
            ("__connect.errors.exception.stacktrace", None),
        ]);
        let read = read(&record(&on_topic, None)).unwrap();
        assert_eq!((read.writer, read.topic.as_str(), read.partition), (Writer::Connect, "orders.events", 2));
        assert_eq!((read.offset, read.timestamp_ms), (4_711, None));
        assert_eq!(read.reason.as_deref(), Some("org.apache.kafka.connect.errors.DataException"));
        assert_eq!(read.error.as_deref(), Some("Converting byte[] to Kafka Connect data failed"));
        assert_eq!(read.headers, encoded(&[("x-sequence", Some(b"3"))]));
    }

    #[test]
    fn a_record_that_does_not_tell_where_it_came_from_is_none() {
        let cases: [&[Seen<'_>]; 6] = [
            &[],
            &[("x-sequence", Some(b"3"))],
            &[("x-dlq-reason", Some(b"invalid_json")), ("x-original-topic", Some(b"t"))],
            &[
                ("kafka_dlt-original-topic", Some(b"t")),
                ("kafka_dlt-original-partition", Some(&[0xff; 4])),
                ("kafka_dlt-original-offset", Some(&[0; 8])),
            ],
            &[
                ("__connect.errors.topic", None),
                ("__connect.errors.partition", Some(b"0")),
                ("__connect.errors.offset", Some(b"0")),
            ],
            &[
                ("__connect.errors.topic", Some(b"t")),
                ("__connect.errors.partition", Some(b"0")),
                ("__connect.errors.offset", Some(b"-1")),
            ],
        ];
        for headers in cases {
            assert_eq!(read(&record(&encoded(headers), Some(b"{}"))), None, "{headers:?}");
        }
    }
}
