//! Publishes records and waits for their delivery.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::config::KafkaSettings;
use crate::platforms::kafka::listener::Listener;
use crate::platforms::kafka::trouble::Refusal;
use crate::platforms::kafka::{base_config, open};

/// Largest record we try to publish; the topic's own limit is usually lower.
pub const MAX_MESSAGE_BYTES: usize = 100_000_000;

/// An idempotent producer.
pub struct Publisher {
    producer: FutureProducer<Listener>,
    listener: Listener,
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
    /// A right is missing.
    #[error("Kafka does not let us write to topic {0} (authorization failed): grant WRITE on it")]
    Forbidden(String),
    /// Anything else: worth another try, by another producer. It may have arrived all the same. Why we are not let in, if the
    /// client said so.
    #[error("{}", .1.as_ref().map_or_else(|| .0.to_string(), |said| format!("Kafka refuses us: {said}")))]
    Kafka(KafkaError, Option<String>),
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
        let listener = Listener::new(settings);
        Ok(Publisher { producer: open(&config, listener.clone())?, listener })
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
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::TopicAuthorizationFailed), _)) => {
                Err(PublishError::Forbidden(topic.to_owned()))
            }
            Err(_) if self.listener.refusal() == Some(Refusal::NoWrite) => {
                Err(PublishError::Forbidden(topic.to_owned()))
            }
            Err((error, _)) => Err(PublishError::Kafka(error, self.listener.words())),
        }
    }
}
