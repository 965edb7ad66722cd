//! Looks at a topic from outside any group: how many partitions, where they begin and end, what stands at an offset.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{self, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use crate::config::KafkaSettings;
use crate::domain::identity::Anchor;
use crate::domain::record::{Headers, Record};
use crate::domain::units::{NextOffset, Offset, Partition};
use crate::platforms::kafka::listener::{Listener, listen};
use crate::platforms::kafka::{consumer_config, open, record_time};

/// Why the log could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No answer, or none that says more: it is asked again. Why we are not let in, if the client said so.
    #[error("Kafka does not {}", silence(.0, .1))]
    Silent(KafkaError, Option<String>),
    /// Topic or partition is unknown to the broker that was asked, whatever the metadata say: it is being deleted or made.
    #[error("topic {0} does not exist, at least not everywhere")]
    NoTopic(String),
    /// We have no right to what was asked for.
    #[error("Kafka does not let us {what}: {error}; grant {right} on the topic")]
    Forbidden {
        /// What was tried.
        what: String,
        /// What Kafka says.
        error: KafkaError,
        /// The operation that an ACL has to allow.
        right: &'static str,
    },
}

/// That there is no such topic, for whoever waits for it.
pub fn no_topic(topic: &str) -> String {
    format!("topic {topic} does not exist")
}

fn silence(error: &KafkaError, said: &Option<String>) -> String {
    match said {
        Some(words) => format!("let us in: {words}"),
        None => format!("answer: {error}"),
    }
}

impl LogError {
    /// Likewise, with the address of who does not answer.
    pub fn at(&self, servers: &str) -> String {
        self.to_string().replacen("Kafka does not", &format!("Kafka at {servers} does not"), 1)
    }
}

const TIMEOUT: Duration = Duration::from_secs(5);

/// A reader without a group. Its calls block: use it from a blocking thread.
pub struct LogReader {
    consumer: BaseConsumer<Listener>,
    topic: String,
    /// One at a time reads records.
    reading: Mutex<()>,
}

/// First offset of a partition and one past its last readable one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset still there.
    pub low: Offset,
    /// Last stable offset: one past what a read-committed reader can read.
    pub high: NextOffset,
}

impl Watermarks {
    /// Whether `offset` lies between them.
    pub fn hold(&self, offset: Offset) -> bool {
        self.low <= offset && self.high.is_past(offset)
    }
}

impl LogReader {
    /// Opens a reader of `topic`.
    pub fn open(settings: &KafkaSettings, topic: &str) -> Result<LogReader, LogError> {
        let mut config = consumer_config(settings);
        config
            .set("group.id", "streamview-log-reader") // asked for by the client, never joined
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", "1024")
            .set("fetch.wait.max.ms", "10");
        let consumer = open(&config, Listener::new(settings)).map_err(|error| LogError::Silent(error, None))?;
        Ok(LogReader { consumer, topic: topic.to_owned(), reading: Mutex::default() })
    }

    /// The cluster's id; `None` if it does not answer in time, or has none.
    pub fn cluster_id(&self) -> Option<String> {
        self.consumer.client().fetch_cluster_id(TIMEOUT).filter(|id| !id.is_empty())
    }

    /// The topic's partitions; empty if there is no such topic.
    pub fn partitions(&self) -> Result<Vec<Partition>, LogError> {
        let metadata = self.answered(self.consumer.fetch_metadata(Some(&self.topic), TIMEOUT))?;
        let refused = metadata.topics().iter().filter_map(|topic| topic.error()).map(RDKafkaErrorCode::from);
        if let Some(code) = refused.into_iter().find(|code| *code == RDKafkaErrorCode::TopicAuthorizationFailed) {
            return Err(self.fault(KafkaError::MetadataFetch(code)));
        }
        let mut partitions: Vec<Partition> = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions())
            .map(|partition| Partition(partition.id()))
            .collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Where the partition begins and ends, asked from the broker.
    pub fn watermarks(&self, partition: Partition) -> Result<Watermarks, LogError> {
        let ask = || self.consumer.fetch_watermarks(&self.topic, partition.0, TIMEOUT);
        let answer = match ask() {
            // Added to the topic since the client looked last, and it looks seldom by itself.
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) => {
                self.partitions()?;
                ask()
            }
            answer => answer,
        };
        let (low, high) = self.answered(answer)?;
        Ok(Watermarks { low: Offset(low), high: NextOffset(high) })
    }

    /// Where every partition begins and ends; empty if there is no such topic.
    pub fn extents(&self) -> Result<Vec<(Partition, Watermarks)>, LogError> {
        self.partitions()?.into_iter().map(|partition| Ok((partition, self.watermarks(partition)?))).collect()
    }

    /// Reads the record at `offset`, or `None` if it is not there (compacted, a control record, beyond the end).
    pub fn record_at(&self, partition: Partition, offset: Offset) -> Result<Option<Anchor>, LogError> {
        let first = self.first_from(partition, offset).map_err(|error| match forbids(&error) {
            true => self.forbidden("read", "READ", error),
            false => self.fault(error),
        });
        Ok(first?.filter(|anchor| anchor.offset == offset))
    }

    /// Fails if Kafka does not let us read the partition; `offset` is one that is there, or its end. What stands there does
    /// not matter.
    pub fn try_read(&self, partition: Partition, offset: Offset) -> Result<(), LogError> {
        match self.record_at(partition, offset) {
            Err(error @ LogError::Forbidden { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    fn first_from(&self, partition: Partition, offset: Offset) -> Result<Option<Anchor>, KafkaError> {
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition.0, topic_partition_list::Offset::Offset(offset.0))?;
        self.consumer.assign(&list)?;
        let read = self.first_record();
        self.consumer.unassign()?;
        read
    }

    fn answered<T>(&self, answer: Result<T, KafkaError>) -> Result<T, LogError> {
        if answer.is_ok() {
            self.consumer.context().forget();
        }
        answer.map_err(|error| self.fault(error))
    }

    fn fault(&self, error: KafkaError) -> LogError {
        if forbids(&error) {
            return self.forbidden("see", "DESCRIBE", error);
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) {
            return LogError::NoTopic(self.topic.clone());
        }
        // What the client says of its connections is heard by polling only, which must take nothing from who reads.
        if let Ok(_nobody_reads) = self.reading.try_lock() {
            listen(&self.consumer);
        }
        LogError::Silent(error, self.consumer.context().said())
    }

    fn forbidden(&self, verb: &str, right: &'static str, error: KafkaError) -> LogError {
        LogError::Forbidden { what: format!("{verb} topic {}", self.topic), error, right }
    }

    fn first_record(&self) -> Result<Option<Anchor>, KafkaError> {
        let deadline = Instant::now() + TIMEOUT;
        let mut reason = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
        while Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(error)) if forbids(&error) => return Err(error),
                // Perhaps queued long ago, while Kafka was away: it counts only if no record follows.
                Some(Err(error)) => reason = error,
                Some(Ok(message)) => {
                    let timestamp_ms = message.timestamp().to_millis().and_then(record_time);
                    let record = Record {
                        partition: Partition(message.partition()),
                        offset: Offset(message.offset()),
                        timestamp_ms,
                        key: message.key(),
                        payload: message.payload(),
                        headers: Headers::default(),
                    };
                    return Ok(Some(record.anchor()));
                }
            }
        }
        Err(reason)
    }
}

fn forbids(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
}
