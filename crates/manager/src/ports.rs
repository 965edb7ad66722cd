//! What the manager needs of the outside, brought by the service: Kafka and the schema registry.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;

use crate::catalog::{Column, Format};

/// Why the outside did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PortError {
    /// It cannot be reached now; nothing happened, or it can be asked again without harm.
    #[error("{0}")]
    Unavailable(String),
    /// It says no, and would say so again.
    #[error("{0}")]
    Refused(String),
    /// There is no topic of this name.
    #[error("there is no topic {0}")]
    NoTopic(String),
}

/// Where a preview of a topic begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With what comes from now on.
    Latest,
    /// With the first record that is still there.
    Earliest,
    /// In each partition with this offset.
    Offset(i64),
    /// With the first record of this time or later, in milliseconds since 1970.
    Time(i64),
}

/// A record of a topic, not yet read.
#[derive(Debug, Clone)]
pub struct RawRecord {
    /// The partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since 1970; `None` if the record has none.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: RawHeaders,
}

/// Headers of a record, as many as are shown: whoever writes a record chooses how many it has, and nobody reads a thousand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawHeaders {
    /// In their order.
    pub shown: Vec<RawHeader>,
    /// How many more there are.
    pub more: usize,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawHeader {
    /// Its name, cut after [`RawHeaders::MOST_NAME_BYTES`].
    pub name: String,
    /// Its value, cut after [`RawHeaders::MOST_VALUE_BYTES`].
    pub value: Option<Vec<u8>>,
    /// Bytes of the value as it lies there.
    pub bytes: usize,
}

impl RawHeaders {
    /// Most headers of a record that are shown.
    pub const MOST: usize = 32;
    /// Most bytes of a name.
    pub const MOST_NAME_BYTES: usize = 128;
    /// Most bytes of a value.
    pub const MOST_VALUE_BYTES: usize = 512;

    /// Adds the next one, within those bounds.
    pub fn add(&mut self, name: &str, value: Option<&[u8]>) {
        if self.shown.len() == Self::MOST {
            self.more += 1;
            return;
        }
        let end = name.floor_char_boundary(Self::MOST_NAME_BYTES);
        self.shown.push(RawHeader {
            name: name[..end].to_owned(),
            value: value.map(|value| value[..value.len().min(Self::MOST_VALUE_BYTES)].to_vec()),
            bytes: value.map_or(0, <[u8]>::len),
        });
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.shown.iter().map(|header| header.name.len() + header.value.as_ref().map_or(0, Vec::len)).sum()
    }
}

/// A place among the readers of topics. Whoever reads holds it until its client of Kafka has really ended: a question that is
/// under way is not taken back, so that may be seconds after nobody wants its records any more.
#[derive(Debug, Default)]
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// One of those.
    pub fn among(permit: OwnedSemaphorePermit) -> Place {
        Place { _permit: Some(permit) }
    }
}

/// Records as they come, until it is dropped. It belongs to no consumer group.
pub type Records = Pin<Box<dyn Stream<Item = Result<RawRecord, PortError>> + Send>>;

/// A topic as the brokers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u32,
}

/// Who reads a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consumers {
    /// The groups that read it or have committed a position in it, by name.
    pub groups: Vec<ConsumerGroup>,
    /// Groups that were not asked, since there are more than may be asked or time was up. Those that read the topic just now
    /// are asked first.
    pub not_asked: usize,
}

/// A consumer group, as far as one topic goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroup {
    /// Its name.
    pub group: String,
    /// Its state in the coordinator's words, such as `Stable` or `Empty`.
    pub state: String,
    /// Members that have partitions of the topic just now; `None` where members do not say which they have.
    pub members: Option<usize>,
    /// Records that it has not committed yet; `None`: it has committed nothing, or may not be asked.
    pub lag: Option<u64>,
    /// Why its positions are not known.
    pub trouble: Option<String>,
}

/// The brokers.
#[async_trait]
pub trait Kafka: Send + Sync {
    /// All topics but Kafka's own.
    async fn topics(&self) -> Result<Vec<Topic>, PortError>;
    /// Makes a topic; one that is there already is fine.
    async fn create_topic(&self, name: &str, partitions: u32) -> Result<(), PortError>;
    /// Deletes a topic; one that is not there is fine.
    async fn delete_topic(&self, name: &str) -> Result<(), PortError>;
    /// For each partition of `topic` the first offset and the next one.
    async fn watermarks(&self, topic: &str) -> Result<Vec<(i64, i64)>, PortError>;
    /// How many records a consumer group has not committed yet, over all partitions of `topic`; `None` if it committed nothing.
    async fn group_lag(&self, group: &str, topic: &str) -> Result<Option<u64>, PortError>;
    /// The consumer groups that read a topic, of the first `most` that could. `Unavailable` and `Refused` where the brokers do
    /// not tell.
    async fn consumers(&self, topic: &str, most: usize) -> Result<Consumers, PortError>;
    /// The records of a topic from there on, for whoever has this place.
    async fn tail(&self, topic: &str, from: From, place: Place) -> Result<Records, PortError>;
}

/// A value that was read by its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// How it was written.
    pub format: Format,
    /// The value as JSON text. Decimals are text, and so are numbers that a double would round.
    pub json: String,
}

/// The schema registry.
#[async_trait]
pub trait Schemas: Send + Sync {
    /// The columns of a topic's values by its `<topic>-value` subject; `None` if there is none.
    async fn columns_of(&self, topic: &str) -> Result<Option<(Format, Vec<Column>)>, PortError>;
    /// A value in Confluent's framing; `None` if it is not in that framing. Refused: it is, and cannot be read.
    async fn decode(&self, value: &[u8]) -> Result<Option<Decoded>, PortError>;
}
