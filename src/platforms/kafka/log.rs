//! Looks at a topic from outside any group: how many partitions, where they begin and end, what stands at an offset.

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
use crate::platforms::kafka::{base_config, limit_answers, record_time};

/// Why the log could not be looked at.
pub type LogError = KafkaError;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A reader without a group. Its calls block: use it from a blocking thread.
pub struct LogReader {
    consumer: BaseConsumer,
    topic: String,
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
    pub fn open(settings: &KafkaSettings, topic: &str) -> Result<LogReader, KafkaError> {
        let mut config = base_config(settings);
        limit_answers(&mut config, settings);
        config
            .set("group.id", "streamview-log-reader") // asked for by the client, never joined
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", "1024")
            .set("fetch.wait.max.ms", "10");
        Ok(LogReader { consumer: config.create()?, topic: topic.to_owned() })
    }

    /// The cluster's id; `None` if it does not answer in time, or has none.
    pub fn cluster_id(&self) -> Option<String> {
        self.consumer.client().fetch_cluster_id(TIMEOUT).filter(|id| !id.is_empty())
    }

    /// The topic's partitions; empty if there is no such topic.
    pub fn partitions(&self) -> Result<Vec<Partition>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), TIMEOUT)?;
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
    pub fn watermarks(&self, partition: Partition) -> Result<Watermarks, KafkaError> {
        let (low, high) = self.consumer.fetch_watermarks(&self.topic, partition.0, TIMEOUT)?;
        Ok(Watermarks { low: Offset(low), high: NextOffset(high) })
    }

    /// Where every partition begins and ends; empty if there is no such topic.
    pub fn extents(&self) -> Result<Vec<(Partition, Watermarks)>, KafkaError> {
        self.partitions()?.into_iter().map(|partition| Ok((partition, self.watermarks(partition)?))).collect()
    }

    /// Reads the record at `offset`, or `None` if it is not there (compacted, a control record, beyond the end).
    pub fn record_at(&self, partition: Partition, offset: Offset) -> Result<Option<Anchor>, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition.0, topic_partition_list::Offset::Offset(offset.0))?;
        self.consumer.assign(&list)?;
        let read = self.first_record();
        self.consumer.unassign()?;
        Ok(read?.filter(|anchor| anchor.offset == offset))
    }

    fn first_record(&self) -> Result<Option<Anchor>, KafkaError> {
        let deadline = Instant::now() + TIMEOUT;
        let mut reason = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
        while Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
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
