//! Asks the broker for a topic's id (KIP-516): a topic that was deleted and created again has another one. And for the ends of its
//! partitions, whatever transactions are open.
#![allow(unsafe_code)] // DescribeTopics is not in the safe wrapper

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

use crate::config::KafkaSettings;
use crate::platforms::kafka::listener::{Listener, listen};
use crate::platforms::kafka::{base_config, open};

const TIMEOUT_MS: i32 = 5_000;
/// How long is waited for an answer of brokers that may have gone away.
const SOON_MS: i32 = 1_000;

/// What the broker says of a topic's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicIdentity {
    /// Its id, base64 as Kafka's tools show it.
    Id(String),
    /// There is no such topic.
    Missing,
}

/// A client that asks for topic ids, and for ends. Its calls block: use it from a blocking thread.
///
/// It asks with care. While librdkafka (2.12.1) has a request for the controller under way and that broker is gone, it connects
/// to it again at each change of its state, without any backoff (`rd_kafka_broker_controller_async` schedules a connection, and
/// that takes the backoff back), so that two of its threads wake each other all the time. So nothing of the kind is under way
/// while nobody answers: metadata, which it waits for in peace, are asked for first then.
pub struct TopicIdReader {
    client: BaseConsumer<Listener>,
    topic: CString,
    name: String,
    /// Whether nobody has answered the last question.
    is_away: AtomicBool,
}

impl TopicIdReader {
    /// Opens a client for `topic`.
    pub fn open(settings: &KafkaSettings, topic: &str) -> Result<TopicIdReader, KafkaError> {
        let name = topic.to_owned();
        let topic = CString::new(topic).map_err(|_| KafkaError::ClientCreation("topic name holds a NUL".into()))?;
        let mut config = base_config(settings);
        config
            .set("group.id", "streamview-topic-id") // asked for by the client, never joined
            // An end is that of the log, not where the first open transaction begins.
            .set("isolation.level", "read_uncommitted");
        let client = open(&config, Listener::new(settings))?;
        Ok(TopicIdReader { client, topic, name, is_away: AtomicBool::new(false) })
    }

    /// Asks for the id. `Err` says why there was no answer: that we are not let in, if so.
    pub fn read(&self) -> Result<TopicIdentity, String> {
        let answer = self.ask_with_care();
        if answer.is_ok() {
            self.client.context().forget();
            return answer;
        }
        listen(&self.client);
        answer.map_err(|error| self.client.context().said().unwrap_or(error))
    }

    /// Asks for the offset behind all that was written to a partition, records of open transactions included. `Err` says why there was
    /// no answer.
    pub fn end(&self, partition: i32) -> Result<i64, String> {
        let patience = Duration::from_millis(TIMEOUT_MS.unsigned_abs().into());
        match self.client.fetch_watermarks(&self.name, partition, patience) {
            Ok((_, end)) => {
                self.client.context().forget();
                Ok(end)
            }
            Err(error) => {
                listen(&self.client);
                Err(self.client.context().said().unwrap_or_else(|| error.to_string()))
            }
        }
    }

    fn ask_with_care(&self) -> Result<TopicIdentity, String> {
        if !self.is_away.load(Ordering::Relaxed)
            && let Ok(answer) = self.ask(SOON_MS)
        {
            return Ok(answer);
        }
        self.is_away.store(true, Ordering::Relaxed);
        let patience = Duration::from_millis(TIMEOUT_MS.unsigned_abs().into());
        self.client.fetch_metadata(Some(&self.name), patience).map_err(|error| error.to_string())?;
        let answer = self.ask(TIMEOUT_MS);
        self.is_away.store(answer.is_err(), Ordering::Relaxed);
        answer
    }

    fn ask(&self, timeout_ms: i32) -> Result<TopicIdentity, String> {
        let client = self.client.client().native_ptr();
        let mut names = [self.topic.as_ptr()];
        // SAFETY: every object made here is destroyed here, after its last use; pointers into the event are read
        // before the event is destroyed; the client outlives the call.
        unsafe {
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
            let options =
                sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            let mut error = [0; 256];
            sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, error.as_mut_ptr(), error.len());
            let queue = sys::rd_kafka_queue_new(client);
            sys::rd_kafka_DescribeTopics(client, topics, options, queue);
            let event = sys::rd_kafka_queue_poll(queue, timeout_ms + 1_000);
            let answer = if event.is_null() { Err("no answer".to_owned()) } else { read_event(event) };
            if !event.is_null() {
                sys::rd_kafka_event_destroy(event);
            }
            sys::rd_kafka_queue_destroy(queue);
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_TopicCollection_destroy(topics);
            answer
        }
    }
}

/// # Safety
/// `event` must be a live event.
unsafe fn read_event(event: *mut sys::rd_kafka_event_t) -> Result<TopicIdentity, String> {
    let text = |text: *const std::ffi::c_char| {
        if text.is_null() {
            "unknown error".to_owned()
        } else {
            // SAFETY: librdkafka's texts are C strings that live as long as the event.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        }
    };
    // SAFETY: by contract; each pointer is checked before it is followed.
    unsafe {
        if sys::rd_kafka_event_error(event) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_event_error_string(event)));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err("unexpected answer".to_owned());
        }
        let mut count = 0;
        let list = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if list.is_null() || count == 0 {
            return Err("empty answer".to_owned());
        }
        let topic = *list;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        match if error.is_null() { RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR } else { sys::rd_kafka_error_code(error) }
        {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Ok(TopicIdentity::Missing),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => {
                return Err(format!("{}; grant DESCRIBE on the topic", text(sys::rd_kafka_error_string(error))));
            }
            _ => return Err(text(sys::rd_kafka_error_string(error))),
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return Err("the broker shows no topic id".to_owned());
        }
        Ok(TopicIdentity::Id(text(sys::rd_kafka_Uuid_base64str(id))))
    }
}
