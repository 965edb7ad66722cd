//! What the manager needs of the outside, brought by the service: Kafka and the schema registry.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::Stream;

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
    /// The records of a topic from there on.
    async fn tail(&self, topic: &str, from: From) -> Result<Records, PortError>;
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
