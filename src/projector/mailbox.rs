//! Hands records from a lane's reader thread to the lane: what arrives while a batch is being applied is the next one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::domain::record::RecordBatch;
use crate::platforms::kafka::fetch::{FetchProblem, PartitionQueue, Wake};

/// The next batch of a lane, bounded in records and bytes.
pub struct Mailbox {
    next: Mutex<RecordBatch>,
    room: Condvar,
    filled: Notify,
    max_events: usize,
    max_bytes: usize,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new(max_events: usize, max_bytes: usize) -> Self {
        Mailbox { next: Mutex::default(), room: Condvar::new(), filled: Notify::new(), max_events, max_bytes }
    }

    /// Takes all there is, waiting for the first record.
    pub async fn take(&self) -> RecordBatch {
        loop {
            let filled = self.filled.notified();
            let batch = std::mem::take(&mut *self.next.lock().unwrap_or_else(PoisonError::into_inner));
            if !batch.is_empty() {
                self.room.notify_one();
                return batch;
            }
            filled.await;
        }
    }

    /// Waits until there is room, at most `limit`; tells whether there is.
    fn wait_for_room(&self, limit: Duration) -> bool {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |batch: &mut RecordBatch| batch.len() >= self.max_events || batch.size() >= self.max_bytes;
        let (mut next, _) = self.room.wait_timeout_while(next, limit, full).unwrap_or_else(PoisonError::into_inner);
        !full(&mut next)
    }

    /// Lets `read` add as many records as there is room for.
    fn fill(&self, read: impl FnOnce(&mut RecordBatch, usize) -> usize) -> usize {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.max_events.saturating_sub(next.len());
        let count = if room > 0 { read(&mut next, room) } else { 0 };
        drop(next);
        if count > 0 {
            self.filled.notify_one();
        }
        count
    }
}

/// How long a reader sleeps when nothing happens; a stop is noticed at once, it wakes the reader.
const IDLE: Duration = Duration::from_secs(1);

/// The thread that fills one mailbox from the queues of its partitions.
pub struct LaneReader {
    queues: Mutex<Vec<(i32, Arc<PartitionQueue>)>>,
    wake: Arc<Wake>,
    stopped: AtomicBool,
}

impl LaneReader {
    /// Starts the thread of lane `lane`.
    pub fn start(
        lane: usize,
        mailbox: Arc<Mailbox>,
        problems: UnboundedSender<FetchProblem>,
    ) -> std::io::Result<(Arc<LaneReader>, std::thread::JoinHandle<()>)> {
        let reader =
            Arc::new(LaneReader { queues: Mutex::default(), wake: Arc::default(), stopped: AtomicBool::new(false) });
        let running = Arc::clone(&reader);
        let thread =
            std::thread::Builder::new().name(format!("read-{lane}")).spawn(move || running.run(&mailbox, &problems))?;
        Ok((reader, thread))
    }

    /// What wakes this reader: partition queues are opened with it.
    pub fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Reads from `queue` from now on.
    pub fn add(&self, partition: i32, queue: PartitionQueue) {
        self.change(|queues| queues.push((partition, Arc::new(queue))));
    }

    /// Stops reading `partition`. A read under way may still deliver records of its generation.
    pub fn remove(&self, partition: i32) {
        self.change(|queues| queues.retain(|(other, _)| *other != partition));
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.change(Vec::clear);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<(i32, Arc<PartitionQueue>)>)) {
        change(&mut self.queues.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.wake();
    }

    fn run(&self, mailbox: &Mailbox, problems: &UnboundedSender<FetchProblem>) {
        let mut found = Vec::new();
        let mut turn = 0;
        while !self.stopped.load(Ordering::Acquire) {
            if !mailbox.wait_for_room(IDLE) {
                continue;
            }
            let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut read = 0;
            // Another queue goes first each time: a long backlog must not leave the others without room.
            turn += 1;
            for (_, queue) in queues.iter().cycle().skip(turn % queues.len().max(1)).take(queues.len()) {
                read += mailbox.fill(|batch, room| queue.read_into(batch, room, &mut found));
            }
            drop(queues);
            for problem in found.drain(..) {
                if problems.send(problem).is_err() {
                    return;
                }
            }
            if read == 0 {
                self.wake.wait(IDLE);
            }
        }
    }
}
