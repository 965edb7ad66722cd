//! Finds out whether a partition is what makes the broker's answers too large to be received.
//!
//! librdkafka drops the connection then, tells the size, and asks again, without end; it does not tell whose records
//! they were. So each partition is asked for alone, on a connection of its own.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::config::KafkaSettings;
use crate::domain::units::{self, Partition};
use crate::platforms::kafka::trouble::{Trouble, trouble};
use crate::platforms::kafka::{consumer_config, open};

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Listener {
    too_large: Mutex<Option<String>>,
}

impl ClientContext for Listener {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code().map(|code| trouble(code, reason)) == Some(Trouble::TooLarge) {
            *self.too_large.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Listener {}

/// What is wrong with the size of what stands at `offset`; `None` if it can be received, or if nobody answers in time.
/// Blocks.
pub fn too_large_at(
    settings: &KafkaSettings,
    topic: &str,
    partition: Partition,
    offset: units::Offset,
) -> Option<String> {
    let mut config = consumer_config(settings);
    config
        .set("group.id", "streamview-probe") // asked for by the client, never joined
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer<Listener> = open(&config, Listener::default()).ok()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition.0, Offset::Offset(offset.0)).ok()?;
    consumer.assign(&list).ok()?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let readable = match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => true,
            Some(Err(_)) | None => false,
        };
        let told = consumer.context().too_large.lock().unwrap_or_else(PoisonError::into_inner).take();
        if told.is_some() || readable {
            return told;
        }
    }
    None
}
