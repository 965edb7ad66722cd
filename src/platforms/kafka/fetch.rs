//! Reads records of assigned partitions in bulk, one queue per partition, without going through the consumer's poll.
//!
//! Back-pressure is simply not reading: librdkafka stops fetching when a queue is full, and the consumer itself is
//! polled by another thread all the while, so no rebalance follows. Never commits, never seeks.
#![allow(unsafe_code)] // librdkafka's per-partition queues are not in the safe wrapper

use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

use crate::domain::record::{Headers, PartitionEnd, Record, RecordBatch, UnreadableBatch};
use crate::domain::units::{NextOffset, Offset, Partition};
use crate::platforms::kafka::consumer::GroupContext;
use crate::platforms::kafka::record_time;

/// Most messages taken from one partition at a time, so that partitions take turns.
const CHUNK: usize = 512;

/// Wakes a reader when one of its queues gets its first message.
#[derive(Debug, Default)]
pub struct Wake {
    ready: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    /// Wakes the reader.
    pub fn wake(&self) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits until woken, at most `limit`.
    pub fn wait(&self, limit: Duration) {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut ready, _) =
            self.changed.wait_timeout_while(ready, limit, |ready| !*ready).unwrap_or_else(PoisonError::into_inner);
        *ready = false;
    }
}

/// A problem that the broker reported for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchProblem {
    /// Partition.
    pub partition: Partition,
    /// What it means.
    pub trouble: FetchTrouble,
    /// What librdkafka says.
    pub text: String,
}

/// What a problem of a partition means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchTrouble {
    /// Our position is not in the log (any more).
    OutOfRange,
    /// At that offset stands something that is too large to be received.
    TooLarge(Offset),
    /// We may not read the topic.
    Forbidden,
    /// The client tries again.
    Passing,
}

/// The queue of one assigned partition. Open it before the partition is assigned and drop it after it is unassigned;
/// all it reads carries its generation.
pub struct PartitionQueue {
    queue: *mut sys::rd_kafka_queue_t,
    partition: Partition,
    generation: u64,
    max_record_bytes: usize,
    /// Set at the first thing that cannot be read: whatever follows must not be consumed before it is dealt with.
    stopped: AtomicBool,
    wake: *const Wake,
    // Keeps the client alive for as long as its queue.
    _consumer: Arc<BaseConsumer<GroupContext>>,
}

// SAFETY: librdkafka's queues may be used from any thread; `wake` is an Arc turned raw, and Wake is Sync.
unsafe impl Send for PartitionQueue {}
// SAFETY: as above; all methods take &self and librdkafka locks inside.
unsafe impl Sync for PartitionQueue {}

extern "C" fn on_first_message(_: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: `opaque` is the Arc<Wake> that the PartitionQueue holds until it has taken this callback away.
    unsafe { &*opaque.cast::<Wake>() }.wake();
}

impl PartitionQueue {
    /// Splits the partition off the consumer's own queue. A record of more than `max_record_bytes` (key and value) is
    /// as unreadable as a broken batch.
    pub fn open(
        consumer: &Arc<BaseConsumer<GroupContext>>,
        topic: &str,
        (partition, generation): (Partition, u64),
        max_record_bytes: usize,
        wake: &Arc<Wake>,
    ) -> Option<PartitionQueue> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client is alive (we hold it) and the topic is a C string.
        let queue =
            unsafe { sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition.0) };
        if queue.is_null() {
            return None;
        }
        let wake = Arc::into_raw(Arc::clone(wake));
        // SAFETY: the queue is ours; `wake` lives until the callback is removed in drop.
        unsafe {
            sys::rd_kafka_queue_forward(queue, ptr::null_mut());
            sys::rd_kafka_queue_cb_event_enable(queue, Some(on_first_message), wake.cast_mut().cast());
        }
        let (stopped, _consumer) = (AtomicBool::new(false), Arc::clone(consumer));
        Some(PartitionQueue { queue, partition, generation, max_record_bytes, stopped, wake, _consumer })
    }

    /// Copies what is waiting, at most `room` records and at most a chunk, into `batch`; problems go to `problems`.
    /// Returns how much was read. Reads nothing more after the first batch that cannot be read: librdkafka goes on
    /// behind some of them by itself.
    ///
    /// One message at a time, although many at once would cost half as much (docs/performance.md). A rebalance throws away what is
    /// queued and fetches again from where we are by librdkafka's account, which it keeps wrongly with both of its other calls:
    /// - the batch call (2.2 to 2.12, its issue 4844) counts the end of a partition as a record, so the record that follows is
    ///   never read;
    /// - the callback call (to 2.12) counts the end of a transaction even if it was thrown away, so the records before it,
    ///   which were thrown away with it, are never read. And it takes the whole queue out while it runs: to the thread that
    ///   fetches it is empty then, and may be filled beyond its bound.
    pub fn read_into(&self, batch: &mut RecordBatch, room: usize, problems: &mut Vec<FetchProblem>) -> usize {
        let most = room.min(CHUNK);
        for count in 0..most {
            if self.stopped.load(Ordering::Relaxed) {
                return count;
            }
            // SAFETY: the queue is ours; a timeout of 0 only takes what is there.
            let message = unsafe { sys::rd_kafka_consume_queue(self.queue, 0) };
            if message.is_null() {
                return count;
            }
            // SAFETY: librdkafka gave us a valid message, destroyed exactly once, after its last use.
            unsafe {
                self.take(&*message, batch, problems);
                sys::rd_kafka_message_destroy(message);
            }
        }
        most
    }

    /// # Safety
    /// `message` must be alive.
    unsafe fn take(
        &self,
        message: &sys::rd_kafka_message_t,
        batch: &mut RecordBatch,
        problems: &mut Vec<FetchProblem>,
    ) {
        match message.err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR if message.len + message.key_len > self.max_record_bytes => {
                let bytes = message.len + message.key_len;
                self.stop_at(batch, Offset(message.offset), format!("one record of {bytes} bytes"));
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
                // SAFETY: alive by contract.
                let timestamp = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
                // SAFETY: pointers and lengths of a live message.
                let (key, payload) =
                    unsafe { (bytes(message.key, message.key_len), bytes(message.payload, message.len)) };
                let record = Record {
                    partition: self.partition,
                    offset: Offset(message.offset),
                    timestamp_ms: record_time(timestamp),
                    key,
                    payload,
                    headers: Headers::default(),
                };
                // SAFETY: alive by contract.
                batch.push(self.generation, record, |out| unsafe { encode_headers(message, out) });
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => batch.push_end(PartitionEnd {
                partition: self.partition,
                generation: self.generation,
                next_offset: NextOffset(message.offset),
            }),
            error => {
                let trouble = match error {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
                    | RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE => FetchTrouble::OutOfRange,
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => FetchTrouble::Forbidden,
                    _ => FetchTrouble::Passing,
                };
                // SAFETY: librdkafka's error strings are static C strings; the message's own text is in its payload.
                let text = unsafe {
                    let name = CStr::from_ptr(sys::rd_kafka_err2str(error)).to_string_lossy();
                    let detail = bytes(message.payload, message.len).map(String::from_utf8_lossy);
                    detail.map_or_else(|| name.to_string(), |detail| format!("{name}: {detail}"))
                };
                if is_unreadable(error) {
                    return self.stop_at(batch, Offset(message.offset), text);
                }
                if trouble == FetchTrouble::OutOfRange {
                    self.stopped.store(true, Ordering::Relaxed);
                }
                problems.push(FetchProblem { partition: self.partition, trouble, text });
            }
        }
    }

    /// The mark goes the way of the records, so it is seen after those before it are committed.
    fn stop_at(&self, batch: &mut RecordBatch, offset: Offset, text: String) {
        self.stopped.store(true, Ordering::Relaxed);
        let (partition, generation) = (self.partition, self.generation);
        batch.push_unreadable(UnreadableBatch { partition, generation, offset, text });
    }
}

/// Whether the error is about what stands in the log, not about the way to it.
fn is_unreadable(error: RDKafkaRespErr) -> bool {
    matches!(
        error,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_MSG
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_COMPRESSION
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_MSG
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD
    )
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: taking the callback away happens under the queue's lock, so no call can be running afterwards.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
            drop(Arc::from_raw(self.wake));
        }
    }
}

/// # Safety
/// `start` must be null or point to `length` bytes that outlive `'a`.
unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: by contract.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}

/// The headers of a message, encoded into `buffer` in place of what was there. The client's own way to them panics at a name that
/// is not UTF-8.
pub(super) fn headers_of<'b>(message: &BorrowedMessage<'_>, buffer: &'b mut Vec<u8>) -> Headers<'b> {
    buffer.clear();
    // SAFETY: the message is borrowed, so it is alive.
    unsafe { encode_headers(&*message.ptr(), buffer) };
    Headers::from_encoded(buffer)
}

/// # Safety
/// `message` must be alive.
unsafe fn encode_headers(message: &sys::rd_kafka_message_t, out: &mut Vec<u8>) {
    let mut headers = ptr::null_mut();
    // SAFETY: by contract; the headers belong to the message.
    unsafe {
        if sys::rd_kafka_message_headers(message, &raw mut headers) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let found = sys::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size);
            if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            Headers::push(out, CStr::from_ptr(name).to_bytes(), bytes(value, size));
        }
    }
}
