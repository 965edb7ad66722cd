//! Publishes records and waits for their delivery.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::config::KafkaSettings;
use crate::platforms::kafka::base_config;

/// Largest record we try to publish; the topic's own limit is usually lower.
pub const MAX_MESSAGE_BYTES: usize = 100_000_000;

/// An idempotent producer.
pub struct Publisher {
    producer: FutureProducer,
}

/// A record to publish.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub payload: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
pub struct Delivered {
    /// Partition.
    pub partition: i32,
    /// Offset; below 0 if the broker had it already and does not say where.
    pub offset: i64,
}

/// Why a record was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The topic or the broker does not take records of that size.
    #[error("the record is larger than the topic accepts")]
    TooLarge,
    /// Anything else: worth another try, by another producer. It may have arrived all the same.
    #[error("{0}")]
    Kafka(KafkaError),
}

impl Publisher {
    /// Opens a producer.
    pub fn open(settings: &KafkaSettings) -> Result<Publisher, KafkaError> {
        let mut config = base_config(settings);
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            // The topic's limit is one for batches: a record that fits is not refused for its neighbours.
            .set("batch.num.messages", "1")
            .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
            .set("message.timeout.ms", "10000")
            .set("partitioner", "murmur2_random");
        Ok(Publisher { producer: config.create()? })
    }

    /// Publishes one record and waits until the broker has it.
    pub async fn publish(&self, topic: &str, record: &Outgoing<'_>) -> Result<Delivered, PublishError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: value.as_deref() });
        }
        let mut outgoing = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
        outgoing.key = record.key;
        outgoing.payload = record.payload;
        match self.producer.send(outgoing, Duration::from_secs(5)).await {
            Ok(delivery) => Ok(Delivered { partition: delivery.partition, offset: delivery.offset }),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                Err(PublishError::TooLarge)
            }
            Err((error, _)) => Err(PublishError::Kafka(error)),
        }
    }
}
