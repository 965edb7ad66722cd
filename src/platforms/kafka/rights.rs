//! Asks the broker what we may do with topics and consumer groups (KIP-430), instead of trying it.
#![allow(unsafe_code)] // DescribeTopics and DescribeConsumerGroups are not in the safe wrapper

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

use crate::config::KafkaSettings;
use crate::platforms::kafka::coordinator::REQUEST_TIMEOUT;
use crate::platforms::kafka::listener::Listener;
use crate::platforms::kafka::{base_config, open};

/// How long the broker is asked.
const ANSWER: Duration = Duration::from_secs(4);

/// Something that a rule of the broker allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reading records, or being a member of a group.
    Read,
    /// Writing records.
    Write,
    /// Seeing that it is there, and where it begins and ends.
    Describe,
    /// Seeing its settings.
    DescribeConfigs,
}

impl Operation {
    /// As `kafka-acls` spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Read => "Read",
            Operation::Write => "Write",
            Operation::Describe => "Describe",
            Operation::DescribeConfigs => "DescribeConfigs",
        }
    }

    fn of(code: sys::rd_kafka_AclOperation_t) -> Option<Operation> {
        use sys::rd_kafka_AclOperation_t as Code;
        match code {
            Code::RD_KAFKA_ACL_OPERATION_READ => Some(Operation::Read),
            Code::RD_KAFKA_ACL_OPERATION_WRITE => Some(Operation::Write),
            Code::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Operation::Describe),
            Code::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Operation::DescribeConfigs),
            _ => None,
        }
    }
}

/// What the broker says of our rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// All of what we may do that matters here.
    Told(BTreeSet<Operation>),
    /// We may not even ask.
    None,
    /// There is no such topic, as far as we may see.
    Missing,
    /// The broker does not say.
    Untold(String),
}

/// A client that asks. Its calls block.
pub struct RightsReader {
    client: BaseConsumer<Listener>,
}

impl RightsReader {
    /// Opens a client.
    pub fn open(settings: &KafkaSettings) -> Result<RightsReader, KafkaError> {
        let mut config = base_config(settings);
        config.set("group.id", "streamview-doctor"); // asked for by the client, never joined
        Ok(RightsReader { client: open(&config, Listener::new(settings))? })
    }

    /// What we may do with a topic.
    pub fn of_topic(&self, topic: &str) -> Rights {
        let Ok(name) = CString::new(topic) else { return Rights::Untold("its name holds a NUL".to_owned()) };
        let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let mut names = [name.as_ptr()];
        // SAFETY: the collection lives until it is destroyed, after the request was made of it; the client outlives it.
        unsafe {
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
            let rights = self.ask(
                kind,
                |client, options, queue| sys::rd_kafka_DescribeTopics(client, topics, options, queue),
                |event| read_topic(event),
            );
            sys::rd_kafka_TopicCollection_destroy(topics);
            rights
        }
    }

    /// What we may do with a consumer group, whether it is there or not.
    pub fn of_group(&self, group: &str) -> Rights {
        let Ok(name) = CString::new(group) else { return Rights::Untold("its name holds a NUL".to_owned()) };
        let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let mut names = [name.as_ptr()];
        // SAFETY: names are copied by the call that makes the request.
        unsafe {
            self.ask(
                kind,
                |client, options, queue| {
                    sys::rd_kafka_DescribeConsumerGroups(client, names.as_mut_ptr(), 1, options, queue);
                },
                |event| read_group(event),
            )
        }
    }

    /// # Safety
    /// `request` must make one request of that kind with what it is given, `read` must read its event only while it runs.
    unsafe fn ask(
        &self,
        kind: sys::rd_kafka_admin_op_t,
        request: impl FnOnce(*mut sys::rd_kafka_t, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
        read: impl FnOnce(*mut sys::rd_kafka_event_t) -> Rights,
    ) -> Rights {
        let client = self.client.client().native_ptr();
        // SAFETY: every object made here is destroyed here, after its last use; the client outlives the call.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client, kind);
            let mut error = [0; 256];
            let timeout_ms = REQUEST_TIMEOUT.as_millis() as i32;
            sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, error.as_mut_ptr(), error.len());
            let refused = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
            if !refused.is_null() {
                sys::rd_kafka_error_destroy(refused);
            }
            let queue = sys::rd_kafka_queue_new(client);
            request(client, options, queue);
            let event = sys::rd_kafka_queue_poll(queue, ANSWER.as_millis() as i32);
            let rights = match event.is_null() {
                true => Rights::Untold("there is no answer".to_owned()),
                false if sys::rd_kafka_event_error(event) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    Rights::Untold(text(sys::rd_kafka_event_error_string(event)))
                }
                false => read(event),
            };
            if !event.is_null() {
                sys::rd_kafka_event_destroy(event);
            }
            sys::rd_kafka_queue_destroy(queue);
            sys::rd_kafka_AdminOptions_destroy(options);
            rights
        }
    }
}

fn text(text: *const c_char) -> String {
    if text.is_null() {
        return "unknown error".to_owned();
    }
    // SAFETY: librdkafka's texts are C strings that live as long as what they are of, and whoever calls still has that.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn unexpected() -> Rights {
    Rights::Untold("an unexpected answer".to_owned())
}

/// # Safety
/// `event` must be a live event.
unsafe fn read_topic(event: *mut sys::rd_kafka_event_t) -> Rights {
    // SAFETY: by contract; each pointer is checked before it is followed.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return unexpected();
        }
        let mut count = 0;
        let list = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if list.is_null() || count == 0 {
            return unexpected();
        }
        let topic = *list;
        if let Some(refused) = refusal(sys::rd_kafka_TopicDescription_error(topic)) {
            return refused;
        }
        let mut count = 0;
        told(sys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count), count)
    }
}

/// # Safety
/// `event` must be a live event.
unsafe fn read_group(event: *mut sys::rd_kafka_event_t) -> Rights {
    // SAFETY: by contract; each pointer is checked before it is followed.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
        if result.is_null() {
            return unexpected();
        }
        let mut count = 0;
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if groups.is_null() || count == 0 {
            return unexpected();
        }
        let group = *groups;
        if let Some(refused) = refusal(sys::rd_kafka_ConsumerGroupDescription_error(group)) {
            return refused;
        }
        let mut count = 0;
        told(sys::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &raw mut count), count)
    }
}

/// # Safety
/// `error` must be null or live.
unsafe fn refusal(error: *const sys::rd_kafka_error_t) -> Option<Rights> {
    use RDKafkaRespErr as Code;
    if error.is_null() {
        return None;
    }
    // SAFETY: by contract.
    let (code, words) = unsafe { (sys::rd_kafka_error_code(error), text(sys::rd_kafka_error_string(error))) };
    match code {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR => None,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => Some(Rights::Missing),
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED | Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => {
            Some(Rights::None)
        }
        _ => Some(Rights::Untold(words)),
    }
}

/// # Safety
/// `list` must be null or have `count` elements.
unsafe fn told(list: *const sys::rd_kafka_AclOperation_t, count: usize) -> Rights {
    if list.is_null() {
        return Rights::Untold("the broker does not tell rights".to_owned());
    }
    // SAFETY: by contract.
    Rights::Told((0..count).filter_map(|index| Operation::of(unsafe { *list.add(index) })).collect())
}
