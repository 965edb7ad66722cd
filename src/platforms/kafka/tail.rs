//! The records of a topic as they come, for people who watch. Partitions are assigned, no group is joined and nothing is
//! committed, so nothing is left behind in Kafka. What nobody takes is not fetched: memory is bounded by a few chunks here
//! and by librdkafka's own queue.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{thread, vec};

use futures_util::Stream;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::config::KafkaSettings;
use crate::manager::ports::{From, Place, PortError, RawHeaders, RawRecord};
use crate::platforms::kafka::fetch::headers_of;
use crate::platforms::kafka::listener::Listener;
use crate::platforms::kafka::topics::{TIMEOUT, fault, is_missing, partitions};
use crate::platforms::kafka::{consumer_config, open, record_time};

/// Most records, and bytes after which no more are added, that go to the reader in one step.
const CHUNK_RECORDS: usize = 512;
const CHUNK_BYTES: usize = 256 * 1024;
/// Steps that may wait for the reader.
const CHUNKS: usize = 4;
/// So often the thread looks whether it is still wanted, where no record comes.
const LOOK: Duration = Duration::from_millis(100);
/// So often it asks for new partitions, and whether the topic is still there.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// How long it asks: nobody reads meanwhile.
const ASK_FOR: Duration = Duration::from_secs(1);

/// What goes to the reader in one step.
type Step = Result<Vec<RawRecord>, PortError>;

/// The records, as a stream. Its thread and its client end when it is dropped.
pub struct Tail {
    steps: mpsc::Receiver<Step>,
    records: vec::IntoIter<RawRecord>,
    is_dropped: Arc<AtomicBool>,
}

impl Tail {
    /// Begins. Whatever is published from now on comes out of it. Blocks for some seconds at most. The place is free once the
    /// client has ended.
    pub fn begin(settings: &KafkaSettings, topic: &str, from: From, place: Place) -> Result<Tail, PortError> {
        let mut config = consumer_config(settings);
        config
            .set("group.id", "streamview-preview") // asked for by the client, never joined
            .set("enable.auto.commit", "false")
            // Who watches so slowly that retention takes what comes next goes on behind it.
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", "2048");
        let consumer: BaseConsumer<Listener> =
            open(&config, Listener::new(settings)).map_err(|error| PortError::Refused(error.to_string()))?;
        let named = |error: KafkaError| match is_missing(&error) {
            true => PortError::NoTopic(topic.to_owned()),
            false => fault(&consumer, &error),
        };
        let start = positions(&consumer, topic, from).map_err(named)?;
        consumer.assign(&start).map_err(named)?;
        let known = start.elements().iter().map(|element| element.partition()).collect();
        let (sender, steps) = mpsc::channel(CHUNKS);
        let is_dropped = Arc::new(AtomicBool::new(false));
        let is_dropped_too = Arc::clone(&is_dropped);
        let reader =
            Reader { consumer, topic: topic.to_owned(), known, sender, is_dropped: is_dropped_too, _place: place };
        thread::Builder::new()
            .name(format!("tail-{topic}"))
            .spawn(move || reader.run())
            .map_err(|error| PortError::Unavailable(format!("there is no thread to read topic {topic}: {error}")))?;
        Ok(Tail { steps, records: Vec::new().into_iter(), is_dropped })
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }
}

impl Stream for Tail {
    type Item = Result<RawRecord, PortError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(record) = self.records.next() {
                return Poll::Ready(Some(Ok(record)));
            }
            match self.steps.poll_recv(context) {
                Poll::Ready(Some(Ok(records))) => self.records = records.into_iter(),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Where each partition begins. Ends are told by the broker now, so that nothing that comes later is left out.
fn positions(consumer: &BaseConsumer<Listener>, topic: &str, from: From) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions(consumer, topic, TIMEOUT)? {
        let offset = match from {
            From::Earliest => Offset::Beginning,
            From::Time(millis) => Offset::Offset(millis),
            From::Latest => Offset::Offset(consumer.fetch_watermarks(topic, partition, TIMEOUT)?.1),
            From::Offset(wanted) => {
                let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
                Offset::Offset(wanted.clamp(low, high))
            }
        };
        list.add_partition_offset(topic, partition, offset)?;
    }
    let From::Time(_) = from else { return Ok(list) };
    let found = consumer.offsets_for_times(list, TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    for element in found.elements() {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => offset,
            // Nothing is that young.
            _ => consumer.fetch_watermarks(topic, element.partition(), TIMEOUT)?.1,
        };
        list.add_partition_offset(topic, element.partition(), Offset::Offset(offset))?;
    }
    Ok(list)
}

/// What the thread has.
struct Reader {
    consumer: BaseConsumer<Listener>,
    topic: String,
    known: BTreeSet<i32>,
    sender: mpsc::Sender<Step>,
    is_dropped: Arc<AtomicBool>,
    /// Behind the client: fields are dropped in their order.
    _place: Place,
}

impl Reader {
    fn run(mut self) {
        let mut asked = Instant::now();
        while !self.is_dropped.load(Ordering::Relaxed) {
            let step = match self.chunk() {
                Ok(records) if records.is_empty() => Ok(None),
                Ok(records) => Ok(Some(records)),
                Err(error) => Err(error),
            };
            let step = step.and_then(|records| {
                if asked.elapsed() >= ASK_AGAIN {
                    self.ask()?;
                    asked = Instant::now();
                }
                Ok(records)
            });
            let has_ended = step.is_err();
            let sent = match step.transpose() {
                // Waits while the reader is busy; says so if it is gone.
                Some(step) => self.sender.blocking_send(step),
                None => Ok(()),
            };
            if has_ended || sent.is_err() {
                break;
            }
        }
        tracing::debug!(topic = self.topic, "nobody reads the topic's records any more");
    }

    /// What is there now; waits a little for the first record.
    fn chunk(&mut self) -> Step {
        let (mut records, mut bytes, mut patience) = (Vec::new(), 0, LOOK);
        while records.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
            match self.consumer.poll(patience) {
                None => break,
                Some(Ok(message)) => {
                    let record = record(&message);
                    bytes += message.key_len() + message.payload_len() + record.headers.held();
                    records.push(record);
                    patience = Duration::ZERO;
                }
                Some(Err(error)) => {
                    self.judge(&error)?;
                    break;
                }
            }
        }
        Ok(records)
    }

    /// Whether what the client says ends it: most of it passes.
    fn judge(&self, error: &KafkaError) -> Result<(), PortError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => self.is_there(),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                Err(PortError::Refused(format!("Kafka does not let us read topic {}: grant READ on it", self.topic)))
            }
            _ => {
                tracing::debug!(topic = self.topic, error = %error, "kafka client");
                Ok(())
            }
        }
    }

    /// Whether the topic is still there.
    fn is_there(&self) -> Result<(), PortError> {
        match partitions(&self.consumer, &self.topic, ASK_FOR) {
            Err(error) if is_missing(&error) => {
                Err(PortError::Refused(format!("topic {} is not there any more", self.topic)))
            }
            // Whoever does not answer says nothing of the topic.
            _ => Ok(()),
        }
    }

    /// Asks for new partitions; they are read from their beginning, for all in them is new.
    fn ask(&mut self) -> Result<(), PortError> {
        let found = match partitions(&self.consumer, &self.topic, ASK_FOR) {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return self.is_there(),
            Err(_) => return Ok(()),
        };
        let mut list = TopicPartitionList::new();
        for partition in found {
            if self.known.insert(partition) {
                list.add_partition_offset(&self.topic, partition, Offset::Beginning)
                    .map_err(|error| PortError::Unavailable(error.to_string()))?;
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer.incremental_assign(&list).map_err(|error| {
            PortError::Unavailable(format!("new partitions of topic {} cannot be read: {error}", self.topic))
        })
    }
}

fn record(message: &BorrowedMessage<'_>) -> RawRecord {
    let (mut headers, mut buffer) = (RawHeaders::default(), Vec::new());
    for (name, value) in headers_of(message, &mut buffer).iter() {
        headers.add(name, value);
    }
    RawRecord {
        headers,
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().and_then(record_time).map(|time| time.0),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
    }
}
