//! Reads a topic from given positions, or whole, to its end as it is now. Joins no group and leaves no trace.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::config::KafkaSettings;
use crate::domain::record::Record;
use crate::domain::units::{self, Partition};
use crate::platforms::kafka::fetch::headers_of;
use crate::platforms::kafka::listener::{Listener, listen};
use crate::platforms::kafka::{consumer_config, open, producer, record_time};

/// Longest silence of the broker while records are missing.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than any topic takes to read.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// For each partition the offset that is read next.
pub type Positions = BTreeMap<i32, i64>;

/// Why a topic was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such topic.
    #[error("topic {0} is not there")]
    Missing(String),
    /// A right is missing.
    #[error("Kafka does not let us read topic {topic}: grant READ on the DLQ topic, and WRITE")]
    Forbidden {
        /// The topic.
        topic: String,
        /// What the client says.
        source: KafkaError,
    },
    /// We are not let in.
    #[error("topic {topic} cannot be read, Kafka does not let us in: {said}")]
    Refused {
        /// The topic.
        topic: String,
        /// Why, and what somebody has to do.
        said: String,
    },
    /// Anything else.
    #[error("topic {topic} cannot be read")]
    Kafka {
        /// The topic.
        topic: String,
        /// What the client says.
        source: KafkaError,
    },
}

/// A client that reads one topic on. Its calls block.
pub struct TopicReader {
    consumer: BaseConsumer<Listener>,
    topic: String,
}

impl TopicReader {
    /// A reader of what a producer without transactions has written: it waits for nobody's transaction, and sees what an
    /// aborted one has left, too. It takes batches as large as [`producer::Publisher`] makes them.
    pub fn open_all(settings: &KafkaSettings, topic: &str) -> Result<TopicReader, KafkaError> {
        let mut config = reader_config(settings);
        let largest = settings.max_fetch_bytes.max(producer::MAX_MESSAGE_BYTES + (1 << 20));
        config.set("isolation.level", "read_uncommitted").set("receive.message.max.bytes", largest.to_string());
        Ok(TopicReader { consumer: open(&config, Listener::new(settings))?, topic: topic.to_owned() })
    }

    /// A reader of what projectors are to apply: without the records of open or aborted transactions.
    pub fn open_committed(settings: &KafkaSettings, topic: &str) -> Result<TopicReader, KafkaError> {
        let mut config = reader_config(settings);
        config.set("isolation.level", "read_committed");
        Ok(TopicReader { consumer: open(&config, Listener::new(settings))?, topic: topic.to_owned() })
    }

    /// Gives the records from `from` on to `take`, each partition in its order, to the end that each had when this was
    /// called, but for no longer than `patience`. Returns how far it came, and whether that was the end. A partition
    /// without a position is read from its beginning, and so is one that does not have it (any more, or yet).
    pub fn read_on(
        &self,
        from: &Positions,
        patience: Duration,
        take: impl FnMut(Record<'_>),
    ) -> Result<(Positions, bool), ReadError> {
        let read = self.read(from, patience, take);
        if read.is_ok() {
            self.consumer.context().forget();
        }
        read.map_err(|error| self.fault(error))
    }

    fn fault(&self, error: KafkaError) -> ReadError {
        let topic = self.topic.clone();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                ReadError::Missing(topic)
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => ReadError::Forbidden { topic, source: error },
            _ => {
                listen(&self.consumer);
                match self.consumer.context().said() {
                    Some(said) => ReadError::Refused { topic, said },
                    None => ReadError::Kafka { topic, source: error },
                }
            }
        }
    }

    fn read(
        &self,
        from: &Positions,
        patience: Duration,
        mut take: impl FnMut(Record<'_>),
    ) -> Result<(Positions, bool), KafkaError> {
        let (begun, mut headers) = (Instant::now(), Vec::new());
        let (mut reached, mut ends, mut list) = (Positions::new(), Positions::new(), TopicPartitionList::new());
        for (partition, (low, end)) in self.ends()? {
            let start = from.get(&partition).copied().filter(|start| (low..=end).contains(start)).unwrap_or(low);
            reached.insert(partition, start);
            if start < end {
                ends.insert(partition, end);
                list.add_partition_offset(&self.topic, partition, Offset::Offset(start))?;
            }
        }
        self.consumer.assign(&list)?;
        while !ends.is_empty() && begun.elapsed() < patience {
            let message = match self.consumer.poll(TIMEOUT) {
                None => return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(end) = ends.remove(&partition) {
                        reached.insert(partition, end);
                    }
                    continue;
                }
                Some(message) => message?,
            };
            let (partition, offset) = (message.partition(), message.offset());
            let Some(end) = ends.get(&partition).copied() else { continue };
            if offset < end {
                take(Record {
                    partition: Partition(partition),
                    offset: units::Offset(offset),
                    timestamp_ms: message.timestamp().to_millis().and_then(record_time),
                    key: message.key(),
                    payload: message.payload(),
                    headers: headers_of(&message, &mut headers),
                });
            }
            reached.insert(partition, end.min(offset + 1));
            if offset + 1 >= end {
                ends.remove(&partition);
            }
        }
        self.consumer.unassign()?;
        Ok((reached, ends.is_empty()))
    }

    /// First offset and end of each partition.
    fn ends(&self) -> Result<BTreeMap<i32, (i64, i64)>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), TIMEOUT)?;
        let mut ends = BTreeMap::new();
        for found in metadata.topics() {
            if let Some(error) = found.error() {
                return Err(KafkaError::MetadataFetch(error.into()));
            }
            for partition in found.partitions() {
                let bounds = self.consumer.fetch_watermarks(&self.topic, partition.id(), TIMEOUT)?;
                ends.insert(partition.id(), bounds);
            }
        }
        Ok(ends)
    }
}

/// Gives every record of `topic` to `take`, each partition in its order, until the end that each partition had when this
/// was called. Returns how many there were. Records of open or aborted transactions are left out. Blocks.
///
/// A topic that does not exist is an error, and so is a batch that cannot be read: nothing is left out silently.
pub fn read_topic(settings: &KafkaSettings, topic: &str, mut take: impl FnMut(Record<'_>)) -> Result<u64, ReadError> {
    let reader = TopicReader::open_committed(settings, topic)
        .map_err(|source| ReadError::Kafka { topic: topic.to_owned(), source })?;
    let mut count = 0;
    reader.read_on(&Positions::new(), FOR_EVER, |record| {
        take(record);
        count += 1;
    })?;
    Ok(count)
}

fn reader_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = consumer_config(settings);
    config
        .set("group.id", "streamview-topic-reader") // asked for by the client, never joined
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true");
    config
}
