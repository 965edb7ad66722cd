//! Reads a whole topic once, from its beginning to its end as it is now. Joins no group and leaves no trace.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::config::KafkaSettings;
use crate::domain::record::{Headers, Record};
use crate::domain::units::{self, Partition};
use crate::platforms::kafka::{base_config, limit_answers, record_time};

/// Longest silence of the broker while records are missing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Gives every record of `topic` to `take`, each partition in its order, until the end that each partition had when this
/// was called. Returns how many there were. Records of open or aborted transactions are left out. Blocks.
///
/// A topic that does not exist is an error, and so is a batch that cannot be read: nothing is left out silently.
pub fn read_topic(settings: &KafkaSettings, topic: &str, mut take: impl FnMut(Record<'_>)) -> Result<u64, KafkaError> {
    let mut config = base_config(settings);
    limit_answers(&mut config, settings);
    config
        .set("group.id", "streamview-topic-reader") // asked for by the client, never joined
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true");
    let consumer: BaseConsumer = config.create()?;
    let mut ends = ends(&consumer, topic)?;
    let mut list = TopicPartitionList::new();
    for (partition, (low, _)) in &ends {
        list.add_partition_offset(topic, *partition, Offset::Offset(*low))?;
    }
    consumer.assign(&list)?;
    let (mut count, mut headers) = (0, Vec::new());
    while !ends.is_empty() {
        let message = match consumer.poll(TIMEOUT) {
            None => return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.remove(&partition);
                continue;
            }
            Some(message) => message?,
        };
        let (partition, offset) = (message.partition(), message.offset());
        let Some((_, end)) = ends.get(&partition).copied() else { continue };
        if offset < end {
            headers.clear();
            for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
                Headers::push(&mut headers, header.key.as_bytes(), header.value);
            }
            take(Record {
                partition: Partition(partition),
                offset: units::Offset(offset),
                timestamp_ms: message.timestamp().to_millis().and_then(record_time),
                key: message.key(),
                payload: message.payload(),
                headers: Headers::from_encoded(&headers),
            });
            count += 1;
        }
        if offset + 1 >= end {
            ends.remove(&partition);
        }
    }
    Ok(count)
}

/// First offset and end of each partition that is not empty.
fn ends(consumer: &BaseConsumer, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let mut ends = BTreeMap::new();
    for found in metadata.topics() {
        if let Some(error) = found.error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        for partition in found.partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT)?;
            if low < high {
                ends.insert(partition.id(), (low, high));
            }
        }
    }
    Ok(ends)
}
