//! Writes what a query gives, and how far it has read: in one transaction, or one after the other where a broker has none.
//!
//! A writer is opened once for each deployment, and never again by itself: whoever opens it anew under the same name ends the one
//! that did before, so two that tried again would end each other for ever. After an error it settles what is under way with
//! the producer that it has; where that cannot be done any more, it says that it was fenced, or why it halts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{TIMEOUT, fault, meaning};
use crate::config::KafkaSettings;
use crate::embedded::log::{Delivery, LogError, ORIGIN, Outgoing, Place, Position, Writer};
use crate::platforms::kafka::listener::Listener;
use crate::platforms::kafka::producer::MAX_MESSAGE_BYTES;
use crate::platforms::kafka::{base_config, open};

/// How long the coordinator waits for a transaction of somebody who has gone.
const TRANSACTION_MS: &str = "60000";
/// How long a step of a transaction may take.
const STEP: Duration = Duration::from_secs(30);
/// How long the first one may, which waits for what a predecessor has left.
const FIRST_STEP: Duration = Duration::from_secs(30);

/// Counts what did not arrive.
#[derive(Clone)]
struct Heard {
    listener: Listener,
    lost: Arc<AtomicU64>,
    /// The largest that never will, with its bytes and in words: it is larger than the broker takes. With it went all that it stood in
    /// one batch with.
    too_large: Arc<Mutex<Option<(usize, String)>>>,
}

impl Heard {
    /// What was too large since this was asked last.
    fn take_too_large(&self) -> Option<String> {
        self.too_large.lock().unwrap_or_else(PoisonError::into_inner).take().map(|(_, why)| why)
    }
}

/// The bytes of a record that is too large, and in words what it is.
fn too_large(record: &impl Message) -> (usize, String) {
    let bytes = record.key().map_or(0, <[u8]>::len) + record.payload().map_or(0, <[u8]>::len);
    let header = |name: &str| {
        let found = record.headers()?.iter().find(|header| header.key == name)?.value?;
        Some(String::from_utf8_lossy(found).into_owned())
    };
    let what = match (header("x-dlq-error"), header(ORIGIN)) {
        (Some(_), _) => "a record that is set aside,".to_owned(),
        (None, Some(at)) => format!("a row of {bytes} bytes made of the record at {at}"),
        (None, None) => format!("a row of {bytes} bytes"),
    };
    let topic = record.topic();
    (bytes, format!("{what} is larger than topic {topic} takes: raise its max.message.bytes, or select less of it"))
}

impl ClientContext for Heard {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result {
            self.lost.fetch_add(1, Ordering::Relaxed);
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                let this = too_large(record);
                let mut largest = self.too_large.lock().unwrap_or_else(PoisonError::into_inner);
                if largest.as_ref().is_none_or(|(bytes, _)| *bytes < this.0) {
                    *largest = Some(this);
                }
            }
            tracing::debug!(error = %error, "a record of a query did not arrive");
        }
    }
}

/// What of a transaction is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    /// Its outcome is not known.
    Committing,
    /// It shall not be.
    Aborting,
}

/// Writes under one transactional id.
pub(super) struct JobWriter {
    producer: BaseProducer<Heard>,
    heard: Heard,
    /// Says which group positions are of; joins none.
    group: BaseConsumer<Listener>,
    topics: Vec<String>,
    delivery: Delivery,
    open: Open,
    crash: fn(&'static str),
}

impl JobWriter {
    pub fn open(
        settings: &KafkaSettings,
        (name, group): (&str, &str),
        topics: &[String],
        delivery: Delivery,
        crash: fn(&'static str),
    ) -> Result<JobWriter, LogError> {
        let heard = Heard { listener: Listener::new(settings), lost: Arc::default(), too_large: Arc::default() };
        let mut config = base_config(settings);
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("message.timeout.ms", "30000")
            // What is too large is the topic's to say: the client's own bound is below that of most topics.
            .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
            .set("partitioner", "murmur2_random");
        if delivery == Delivery::ExactlyOnce {
            config.set("transactional.id", name).set("transaction.timeout.ms", TRANSACTION_MS);
        }
        let unusable = |error: KafkaError| LogError::Halt(error.to_string());
        let producer: BaseProducer<Heard> = open(&config, heard.clone()).map_err(unusable)?;
        let mut config = base_config(settings);
        config.set("group.id", group).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        let group = open(&config, Listener::new(settings)).map_err(unusable)?;
        let writer =
            JobWriter { producer, heard, group, topics: topics.to_vec(), delivery, open: Open::Nothing, crash };
        if delivery == Delivery::ExactlyOnce {
            writer.producer.init_transactions(FIRST_STEP).map_err(|error| writer.fault(&error))?;
        }
        Ok(writer)
    }

    fn fault(&self, error: &KafkaError) -> LogError {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(
                Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::TransactionCoordinatorFenced,
            ) => LogError::Fenced,
            Some(Code::MessageSizeTooLarge) => LogError::Halt(format!("a row is too large for Kafka: {error}")),
            _ if is_fatal(error) => LogError::Halt(format!("the transaction cannot go on: {error}")),
            _ => {
                self.producer.poll(Duration::ZERO);
                meaning(error, self.heard.listener.said())
            }
        }
    }

    fn list(&self, positions: &[Position]) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        for position in positions {
            let topic = &self.topics[position.place.topic];
            let mut element = list.add_partition(topic, position.place.partition);
            element.set_offset(Offset::Offset(position.offset))?;
            element.set_metadata(&position.metadata);
        }
        Ok(list)
    }

    /// Hands a record to the client; waits where that has no room.
    fn send(&self, record: &Outgoing) -> Result<(), KafkaError> {
        let until = Instant::now() + STEP;
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + 1);
        for (name, value) in record.headers.iter() {
            headers = headers.insert(Header { key: name, value: value.as_deref() });
        }
        if let Some(origin) = &record.origin {
            headers = headers.insert(Header { key: ORIGIN, value: Some(origin) });
        }
        let mut outgoing = BaseRecord::<[u8], [u8]>::to(&record.topic).headers(headers);
        outgoing.key = record.key.as_deref();
        outgoing.payload = record.value.as_deref();
        loop {
            match self.producer.send(outgoing) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) if Instant::now() < until => {
                    outgoing = again;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Ends what is under way, by the producer that began it.
    fn settle(&mut self) -> Result<(), KafkaError> {
        match self.open {
            Open::Nothing => return Ok(()),
            Open::Committing => match self.producer.commit_transaction(STEP) {
                Ok(()) => {}
                Err(error) if requires_abort(&error) => self.abort()?,
                Err(error) => return Err(error),
            },
            Open::Aborting => self.abort()?,
        }
        self.open = Open::Nothing;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), KafkaError> {
        self.open = Open::Aborting;
        // What is on its way is given up, and told: else the client waits for somebody to hear it.
        self.producer.purge(PurgeConfig::default().queue().inflight());
        self.producer.flush(TIMEOUT)?;
        self.producer.abort_transaction(STEP)
    }

    fn in_a_transaction(&mut self, records: &[Outgoing], positions: &[Position]) -> Result<(), KafkaError> {
        self.producer.begin_transaction()?;
        self.open = Open::Aborting;
        (self.crash)("query.begun");
        for record in records {
            self.send(record)?;
        }
        self.producer.flush(STEP)?;
        (self.crash)("query.sent");
        if !positions.is_empty() {
            let group = self.group.group_metadata().ok_or(KafkaError::Canceled)?;
            self.producer.send_offsets_to_transaction(&self.list(positions)?, &group, STEP)?;
        }
        if !records.is_empty() {
            // The moment at which positions that were not of the transaction would lose records.
            (self.crash)("query.positions");
        }
        self.open = Open::Committing;
        self.producer.commit_transaction(STEP)?;
        self.open = Open::Nothing;
        (self.crash)("query.committed");
        Ok(())
    }

    fn one_after_the_other(&mut self, records: &[Outgoing], positions: &[Position]) -> Result<(), KafkaError> {
        let lost = self.heard.lost.load(Ordering::Relaxed);
        (self.crash)("query.begun");
        for record in records {
            self.send(record)?;
        }
        self.producer.flush(STEP)?;
        if self.heard.lost.load(Ordering::Relaxed) != lost {
            return Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut));
        }
        (self.crash)("query.sent");
        if !positions.is_empty() {
            self.group.commit(&self.list(positions)?, CommitMode::Sync)?;
        }
        (self.crash)("query.committed");
        Ok(())
    }
}

fn is_fatal(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_fatal(),
        error => error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal),
    }
}

fn requires_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.txn_requires_abort())
}

impl Writer for JobWriter {
    fn positions(&mut self, places: &[Place]) -> Result<Vec<Position>, LogError> {
        self.settle().map_err(|error| self.fault(&error))?;
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::new();
        for place in places {
            list.add_partition(&self.topics[place.topic], place.partition);
        }
        let committed = self.group.committed_offsets(list, TIMEOUT).map_err(|error| fault(&self.group, &error))?;
        let mut positions = Vec::new();
        for element in committed.elements() {
            element.error().map_err(|error| fault(&self.group, &error))?;
            let topic = self.topics.iter().position(|topic| topic == element.topic()).unwrap_or_default();
            if let Offset::Offset(offset) = element.offset() {
                let place = Place { topic, partition: element.partition() };
                positions.push(Position { place, offset, metadata: element.metadata().to_owned() });
            }
        }
        Ok(positions)
    }

    fn commit(&mut self, records: &[Outgoing], positions: &[Position]) -> Result<(), LogError> {
        // What was told of an earlier attempt.
        drop(self.heard.take_too_large());
        let done = match self.delivery {
            Delivery::ExactlyOnce => {
                self.settle().map_err(|error| self.fault(&error))?;
                self.in_a_transaction(records, positions)
            }
            Delivery::AtLeastOnce => self.one_after_the_other(records, positions),
        };
        match done {
            Ok(()) => {
                self.heard.listener.forget();
                Ok(())
            }
            Err(error) => {
                self.producer.poll(Duration::ZERO);
                let fault = match self.heard.take_too_large() {
                    Some(why) => LogError::Halt(why),
                    None => self.fault(&error),
                };
                // What cannot be settled now is before anything else is done.
                if fault != LogError::Fenced
                    && let Err(error) = self.settle()
                {
                    tracing::debug!(error = %error, "a transaction of a query cannot be settled yet");
                    if self.fault(&error) == LogError::Fenced {
                        return Err(LogError::Fenced);
                    }
                }
                Err(fault)
            }
        }
    }
}
