//! Reads the topics of a query. A client for each topic: the end of a partition is told without its topic's name.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{TIMEOUT, fault};
use crate::config::KafkaSettings;
use crate::embedded::log::{Batch, LogError, Place, Reader};
use crate::platforms::kafka::fetch::headers_of;
use crate::platforms::kafka::listener::Listener;
use crate::platforms::kafka::topic_id::{TopicIdReader, TopicIdentity};
use crate::platforms::kafka::topics::{is_missing, partitions};
use crate::platforms::kafka::{consumer_config, open, record_time};

/// How long records are gathered after the first one.
const GATHER: Duration = Duration::from_millis(20);
/// What waits in a client at most: a process has a client for each source of each query.
const QUEUED_KILOBYTES: &str = "8192";

/// Reads topics, each with a client of its own.
pub(super) struct JobReader {
    settings: KafkaSettings,
    topics: Vec<Source>,
    turns: Turns,
}

/// Which topic is read first: another one each time. One that fills whole batches would keep the others from being read at all,
/// and what waits for their clocks would grow.
#[derive(Default)]
struct Turns {
    last: usize,
}

impl Turns {
    /// All of so many, in the order in which they are read now.
    fn next(&mut self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.last;
        self.last = (first + 1) % count.max(1);
        (0..count).map(move |turn| (first + turn) % count)
    }
}

struct Source {
    name: String,
    consumer: BaseConsumer<Listener>,
    /// For each assigned partition the offset that comes next.
    next: BTreeMap<i32, i64>,
    /// Who asks for the topic's id and for ends, once somebody has: a client that is made anew each time takes longer than a row may.
    asker: Option<TopicIdReader>,
    /// Where the headers of a record are read into.
    headers: Vec<u8>,
}

impl JobReader {
    pub fn open(settings: &KafkaSettings, topics: &[String]) -> Result<JobReader, LogError> {
        let source = |name: &String| {
            let mut config = consumer_config(settings);
            config
                .set("group.id", "streamview-queries") // asked for by the client, never joined
                .set("enable.auto.commit", "false")
                // Records that are gone are told, not passed over.
                .set("auto.offset.reset", "error")
                .set("isolation.level", "read_committed")
                .set("enable.partition.eof", "true")
                .set("check.crcs", "true")
                .set("fetch.wait.max.ms", settings.fetch_wait_max_ms.to_string())
                .set("queued.max.messages.kbytes", QUEUED_KILOBYTES);
            let consumer = open(&config, Listener::new(settings)).map_err(|error| LogError::Halt(error.to_string()))?;
            Ok(Source { name: name.clone(), consumer, next: BTreeMap::new(), asker: None, headers: Vec::new() })
        };
        let sources = topics.iter().map(source).collect::<Result<_, LogError>>()?;
        Ok(JobReader { settings: settings.clone(), topics: sources, turns: Turns::default() })
    }
}

impl Source {
    fn fault(&self, error: &KafkaError) -> LogError {
        match is_missing(error) {
            true => LogError::Halt(format!("topic {} is not there", self.name)),
            false => fault(&self.consumer, error),
        }
    }

    fn asker(&mut self, settings: &KafkaSettings) -> Result<&TopicIdReader, LogError> {
        let asker = match self.asker.take() {
            Some(asker) => asker,
            None => TopicIdReader::open(settings, &self.name).map_err(|error| LogError::Halt(error.to_string()))?,
        };
        Ok(&*self.asker.insert(asker))
    }

    fn id(&mut self, settings: &KafkaSettings) -> Result<Option<String>, LogError> {
        match self.asker(settings)?.read() {
            Ok(TopicIdentity::Id(id)) => Ok(Some(id)),
            Ok(TopicIdentity::Missing) => Err(LogError::Halt(format!("topic {} is not there", self.name))),
            Err(why) => Err(LogError::Again(format!("the id of topic {} cannot be asked for: {why}", self.name))),
        }
    }

    fn end(&mut self, partition: i32, settings: &KafkaSettings) -> Result<i64, LogError> {
        let end = self.asker(settings)?.end(partition);
        end.map_err(|why| LogError::Again(format!("the end of {}:{partition} cannot be asked for: {why}", self.name)))
    }

    /// Takes what there is, after at most `wait` for the first record.
    fn take(&mut self, number: usize, into: &mut Batch, wait: Duration) -> Result<(), LogError> {
        let (mut patience, mut until) = (wait, None);
        let mut ended = Vec::new();
        while !into.is_full() && until.is_none_or(|until| Instant::now() < until) {
            match self.consumer.poll(patience) {
                None => break,
                Some(Ok(message)) => {
                    let place = Place { topic: number, partition: message.partition() };
                    self.next.insert(message.partition(), message.offset() + 1);
                    copy(&message, place, into, &mut self.headers);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => ended.push(partition),
                Some(Err(error)) => self.judge(&error)?,
            }
            (patience, until) = (Duration::ZERO, until.or_else(|| Some(Instant::now() + GATHER)));
        }
        if !ended.is_empty() {
            self.tell_ends(number, &ended, into);
        }
        Ok(())
    }

    /// The offsets behind all that was read of partitions that were read to their ends. The last of it need not have been records:
    /// what ends a transaction stands in the log as well, and so do the records of one that was aborted. The client counts them and
    /// does not show them; the wrapper drops the offset of the end itself. Asked once for all: it is a word with another thread.
    fn tell_ends(&mut self, number: usize, ended: &[i32], into: &mut Batch) {
        let positions = self.consumer.position().unwrap_or_else(|_| TopicPartitionList::new());
        for partition in ended {
            let position = positions.find_partition(&self.name, *partition).and_then(|of| of.offset().to_raw());
            let next = self.next.entry(*partition).or_default();
            *next = position.unwrap_or_default().max(*next); // negative while nothing has come
            into.ends.push((Place { topic: number, partition: *partition }, *next));
        }
    }

    /// Whether what the client says ends the query: most of it passes.
    fn judge(&self, error: &KafkaError) -> Result<(), LogError> {
        use RDKafkaErrorCode as Code;
        let name = &self.name;
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(LogError::Halt(format!(
                "records of topic {name} are not there any more that were not read yet: retention has deleted them, or \
                 the topic was made anew"
            ))),
            Some(Code::TopicAuthorizationFailed) => {
                Err(LogError::Halt(format!("Kafka does not let us read topic {name}: grant READ on it")))
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                match partitions(&self.consumer, name, TIMEOUT) {
                    Err(error) if is_missing(&error) => {
                        Err(LogError::Halt(format!("topic {name} is not there any more")))
                    }
                    _ => Ok(()),
                }
            }
            Some(Code::BadMessage | Code::BadCompression | Code::NotImplemented | Code::InvalidMessage) => {
                Err(LogError::Halt(format!("a batch of topic {name} cannot be read: {error}")))
            }
            _ => {
                tracing::debug!(topic = name, error = %error, "kafka client");
                Ok(())
            }
        }
    }
}

fn copy(message: &BorrowedMessage<'_>, place: Place, into: &mut Batch, buffer: &mut Vec<u8>) {
    let time = message.timestamp().to_millis().and_then(record_time).map(|time| time.0);
    let parts = (message.key(), message.payload());
    let headers = headers_of(message, buffer).iter().map(|(name, value)| (name.as_bytes(), value));
    into.push((place, message.offset()), time, parts, headers);
}

impl Reader for JobReader {
    fn partitions(&mut self) -> Result<Vec<Vec<i32>>, LogError> {
        let of =
            |source: &Source| partitions(&source.consumer, &source.name, TIMEOUT).map_err(|error| source.fault(&error));
        self.topics.iter().map(of).collect()
    }

    fn bounds(&mut self, place: Place) -> Result<(i64, i64), LogError> {
        let source = &self.topics[place.topic];
        let bounds = source.consumer.fetch_watermarks(&source.name, place.partition, TIMEOUT);
        bounds.map_err(|error| source.fault(&error))
    }

    /// Not by the client that reads: a reader of committed records is told where the first open transaction begins.
    fn end(&mut self, place: Place) -> Result<i64, LogError> {
        self.topics[place.topic].end(place.partition, &self.settings)
    }

    fn ids(&mut self) -> Result<Vec<Option<String>>, LogError> {
        if !self.settings.topic_ids {
            return Ok(vec![None; self.topics.len()]);
        }
        let settings = &self.settings;
        self.topics.iter_mut().map(|source| source.id(settings)).collect()
    }

    fn assign(&mut self, from: &[(Place, i64)]) -> Result<(), LogError> {
        for (number, source) in self.topics.iter_mut().enumerate() {
            let mut list = TopicPartitionList::new();
            for (place, offset) in from.iter().filter(|(place, _)| place.topic == number) {
                list.add_partition_offset(&source.name, place.partition, Offset::Offset(*offset))
                    .map_err(|error| LogError::Halt(error.to_string()))?;
                source.next.insert(place.partition, *offset);
            }
            if list.count() > 0 {
                let assigned = source.consumer.incremental_assign(&list);
                assigned.map_err(|error| LogError::Again(error.to_string()))?;
            }
        }
        Ok(())
    }

    fn next(&mut self, into: &mut Batch, wait: Duration) -> Result<(), LogError> {
        into.clear();
        // Where there are several, each is waited for in turn: a wait is short.
        let count = u32::try_from(self.topics.len()).unwrap_or(1).max(1);
        for number in self.turns.next(self.topics.len()) {
            let wait = if into.is_empty() { wait / count } else { Duration::ZERO };
            self.topics[number].take(number, into, wait)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_is_the_first_that_is_read_once_in_as_many_times() {
        let mut turns = Turns::default();
        let read: Vec<Vec<usize>> = (0..4).map(|_| turns.next(3).collect()).collect();
        assert_eq!(read, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        assert_eq!(turns.next(0).count(), 0);
    }
}
