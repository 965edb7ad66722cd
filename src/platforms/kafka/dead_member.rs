//! Asks the broker who is a static member of a group, and removes one that is dead.
#![allow(unsafe_code)] // DescribeConsumerGroups is not in the safe wrapper

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::config::KafkaSettings;
use crate::platforms::kafka::closing::Closing;
use crate::platforms::kafka::coordinator::REQUEST_TIMEOUT;
use crate::platforms::kafka::listener::{Listener, listen};
use crate::platforms::kafka::{base_config, consumer, open};

/// How long the group is asked who is in it.
const ANSWER: Duration = Duration::from_secs(5);
/// How long is tried to remove one member.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// The `group.instance.id`s of the group's static members. Blocks.
pub fn static_members(settings: &KafkaSettings, group: &str) -> Result<Vec<String>, String> {
    let mut config = base_config(settings);
    config.set("group.id", "streamview-group-reader"); // asked for by the client, never joined
    let client: BaseConsumer<Listener> = open(&config, Listener::new(settings)).map_err(|error| error.to_string())?;
    let members = describe(&client, group);
    if members.is_err() {
        listen(&client);
    }
    members.map_err(|error| client.context().said().unwrap_or(error))
}

/// Removes the member of that `group.instance.id` from the group, whose process is dead: joins under its name, which the
/// broker takes for its return, and leaves. The group then shares its partitions out at once, and not after the session
/// timeout. Blocks.
///
/// To come back under its name and stay would be no help: the group would go on as if nothing had happened, and where the
/// dead one was in the middle of giving partitions up, those would be nobody's until the next change of membership.
pub fn remove_dead(settings: &KafkaSettings, (group, topic): (&str, &str), instance_id: &str) -> Result<(), String> {
    let mut config = base_config(settings);
    consumer::membership_config(&mut config, settings, group);
    config.set("group.instance.id", instance_id).set("fetch.wait.max.ms", "10");
    let guest: BaseConsumer<Guest> = open(&config, Guest::default()).map_err(|error| error.to_string())?;
    let removed = come_and_go(&guest, (group, topic), instance_id);
    guest.context().closing.begin();
    removed
}

fn come_and_go(guest: &BaseConsumer<Guest>, (group, topic): (&str, &str), instance_id: &str) -> Result<(), String> {
    guest.subscribe(&[topic]).map_err(|error| error.to_string())?;
    let deadline = Instant::now() + PATIENCE;
    until(guest, deadline, || Ok(guest.context().is_member.load(Ordering::Acquire)))?;
    guest.unsubscribe();
    // Closing a static member tells the group nothing: it has to be gone before.
    until(guest, deadline, || Ok(!describe(guest, group)?.iter().any(|other| other == instance_id)))
}

/// Whether the client is a member of its group, as far as it knows: not any more from the moment that it tells the group of
/// its leave.
pub(super) fn is_member<C: ConsumerContext>(client: &BaseConsumer<C>) -> bool {
    let client = client.client().native_ptr();
    // SAFETY: the client outlives the call; the text is a C string of its own, freed once after its last use.
    unsafe {
        let id = sys::rd_kafka_memberid(client);
        if id.is_null() {
            return false;
        }
        let is_some = !CStr::from_ptr(id).is_empty();
        sys::rd_kafka_mem_free(client, id.cast());
        is_some
    }
}

fn until(
    guest: &BaseConsumer<Guest>,
    deadline: Instant,
    is_done: impl Fn() -> Result<bool, String>,
) -> Result<(), String> {
    let mut last = "the group did not answer in time".to_owned();
    while Instant::now() < deadline {
        if let Some(Err(error)) = guest.poll(POLL) {
            last = error.to_string();
        }
        if is_done()? {
            return Ok(());
        }
    }
    Err(last)
}

/// Joins and leaves, and reads nothing in between.
#[derive(Default)]
struct Guest {
    is_member: AtomicBool,
    closing: Closing,
}

impl ClientContext for Guest {}

impl ConsumerContext for Guest {
    fn rebalance(&self, guest: &BaseConsumer<Self>, err: sys::rd_kafka_resp_err_t, list: &mut TopicPartitionList) {
        if !self.closing.needs_answer(guest) {
            return;
        }
        let obeyed = if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.is_member.store(true, Ordering::Release);
            // A place that needs no question: it is given up at once.
            list.set_all_offsets(Offset::Offset(0)).and_then(|()| guest.incremental_assign(list))
        } else {
            guest.incremental_unassign(list)
        };
        if let Err(error) = obeyed {
            tracing::debug!(error = %error, "rebalance while a dead member is removed");
        }
    }
}

fn describe<C: ConsumerContext>(client: &BaseConsumer<C>, group: &str) -> Result<Vec<String>, String> {
    let group = CString::new(group).map_err(|_| "the group's name holds a NUL".to_owned())?;
    let client = client.client().native_ptr();
    let mut names = [group.as_ptr()];
    // SAFETY: every object made here is destroyed here, after its last use; what is read from the event is read before the
    // event is destroyed; the client outlives the call.
    unsafe {
        let options =
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS);
        let mut error = [0; 256];
        let timeout_ms = REQUEST_TIMEOUT.as_millis() as i32;
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, error.as_mut_ptr(), error.len());
        let queue = sys::rd_kafka_queue_new(client);
        sys::rd_kafka_DescribeConsumerGroups(client, names.as_mut_ptr(), 1, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, ANSWER.as_millis() as i32);
        let answer = if event.is_null() { Err("no answer".to_owned()) } else { read_event(event) };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        answer
    }
}

/// # Safety
/// `event` must be a live event.
unsafe fn read_event(event: *mut sys::rd_kafka_event_t) -> Result<Vec<String>, String> {
    // SAFETY: by contract; librdkafka's texts are C strings that live as long as the event, and each pointer is checked
    // before it is followed.
    unsafe {
        let text = |text: *const std::ffi::c_char| {
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        let failed = |message| Err(text(message).unwrap_or_else(|| "unknown error".to_owned()));
        if sys::rd_kafka_event_error(event) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return failed(sys::rd_kafka_event_error_string(event));
        }
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
        if result.is_null() {
            return Err("unexpected answer".to_owned());
        }
        let mut count = 0;
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if groups.is_null() || count == 0 {
            return Err("empty answer".to_owned());
        }
        let group = *groups;
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() && sys::rd_kafka_error_code(error) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return failed(sys::rd_kafka_error_string(error));
        }
        let members = 0..sys::rd_kafka_ConsumerGroupDescription_member_count(group);
        let members = members.map(|index| sys::rd_kafka_ConsumerGroupDescription_member(group, index));
        let ids = members.filter(|member| !member.is_null());
        Ok(ids.filter_map(|member| text(sys::rd_kafka_MemberDescription_group_instance_id(member))).collect())
    }
}
