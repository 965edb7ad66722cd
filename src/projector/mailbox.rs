//! Hands records from a lane's reader thread to the lane: what arrives while a batch is being applied is the next one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::crash;
use crate::domain::record::RecordBatch;
use crate::domain::units::Partition;
use crate::platforms::kafka::fetch::{FetchProblem, PartitionQueue, Wake};
use crate::projector::supervisor;
use crate::status::ViewStatus;

/// So many records are not worth waiting for more of.
const ENOUGH: usize = 500;

enum Taken {
    Nothing,
    TooFew,
    Batch(RecordBatch),
}

/// Memory of batches that are done.
#[derive(Default)]
struct Spare {
    /// Whether it is kept.
    is_kept: bool,
    /// The next batch but one goes there.
    batch: Option<RecordBatch>,
}

/// When the first record of a batch came.
#[derive(Debug, Default)]
struct FirstCame {
    next: Option<SystemTime>,
    taken: Option<SystemTime>,
}

/// The next batch of a lane, bounded in records and bytes.
pub struct Mailbox {
    next: Mutex<RecordBatch>,
    first_came: Mutex<FirstCame>,
    spare: Mutex<Spare>,
    room: Condvar,
    filled: Notify,
    max_events: usize,
    max_bytes: usize,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new(max_events: usize, max_bytes: usize) -> Self {
        let (next, spare, room, filled) = (Mutex::default(), Mutex::default(), Condvar::new(), Notify::new());
        Mailbox { next, first_came: Mutex::default(), spare, room, filled, max_events, max_bytes }
    }

    /// Takes all there is, waiting for the first record, and until `not_before` for more unless 500 are there.
    pub async fn take(&self, not_before: Instant) -> RecordBatch {
        loop {
            let filled = self.filled.notified();
            let is_due = Instant::now() >= not_before;
            match self.take_now(is_due) {
                Taken::Batch(batch) => {
                    self.room.notify_one();
                    return batch;
                }
                // Whichever comes first; both lead to another look.
                Taken::TooFew if !is_due => drop(tokio::time::timeout_at(not_before, filled).await),
                Taken::TooFew | Taken::Nothing => filled.await,
            }
        }
    }

    /// When the first came of what was taken last.
    pub fn first_came(&self) -> Option<SystemTime> {
        self.first_came.lock().unwrap_or_else(PoisonError::into_inner).taken
    }

    /// A batch that was taken is done. Between [`Mailbox::keep`] and [`Mailbox::shrink`] its memory is used again: to get it anew
    /// costs more than to fill it.
    pub fn done(&self, mut batch: RecordBatch) {
        batch.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        // Else what is filled now may be in memory of a large batch, and would go round for ever.
        spare.batch = spare.is_kept.then_some(batch);
    }

    /// Keeps the memory of batches from now on: large ones follow each other.
    pub fn keep(&self) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).is_kept = true;
    }

    /// Keeps no memory for batches to come. What is being filled goes with its batch.
    pub fn shrink(&self) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_empty() {
            *next = RecordBatch::default();
        }
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Spare::default();
    }

    fn take_now(&self, is_due: bool) -> Taken {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match next.is_empty() {
            true => Taken::Nothing,
            false if is_due || self.is_enough(&next) => {
                let mut came = self.first_came.lock().unwrap_or_else(PoisonError::into_inner);
                came.taken = came.next.take();
                drop(came);
                let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).batch.take();
                Taken::Batch(std::mem::replace(&mut *next, spare.unwrap_or_default()))
            }
            false => Taken::TooFew,
        }
    }

    fn is_enough(&self, batch: &RecordBatch) -> bool {
        batch.len() >= ENOUGH.min(self.max_events) || batch.size() >= self.max_bytes
    }

    /// Waits until there is room, at most `limit`; tells whether there is.
    fn wait_for_room(&self, limit: Duration) -> bool {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |batch: &mut RecordBatch| batch.len() >= self.max_events || batch.size() >= self.max_bytes;
        let (mut next, _) = self.room.wait_timeout_while(next, limit, full).unwrap_or_else(PoisonError::into_inner);
        !full(&mut next)
    }

    /// Lets `read` add as many records as the next batch may still take.
    ///
    /// Whoever takes is woken where another look shows something else: at the first that is there, and when it became enough. In
    /// between it waits for its time, which comes by itself; to wake it for each record would cost more than the record. No wake-up
    /// is lost: it asks to be notified before it looks, and `Notify` keeps one notification for the next who waits.
    fn fill(&self, read: impl FnOnce(&mut RecordBatch, usize) -> usize) -> usize {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.max_events.saturating_sub(next.len());
        let (was_empty, was_enough) = (next.is_empty(), self.is_enough(&next));
        let count = read(&mut next, room);
        if was_empty && !next.is_empty() {
            self.first_came.lock().unwrap_or_else(PoisonError::into_inner).next = Some(SystemTime::now());
        }
        let is_news = was_empty && !next.is_empty() || !was_enough && self.is_enough(&next);
        drop(next);
        if is_news {
            self.filled.notify_one();
        }
        count
    }
}

/// How long a reader sleeps when nothing happens; a stop is noticed at once, it wakes the reader.
const IDLE: Duration = Duration::from_secs(1);

/// The thread that fills one mailbox from the queues of its partitions.
pub struct LaneReader {
    queues: Mutex<Vec<(Partition, Arc<PartitionQueue>)>>,
    wake: Arc<Wake>,
    stopped: AtomicBool,
}

impl LaneReader {
    /// Starts the thread of lane `lane`.
    pub fn start(
        lane: usize,
        mailbox: Arc<Mailbox>,
        problems: UnboundedSender<FetchProblem>,
        status: &Arc<ViewStatus>,
    ) -> std::io::Result<(Arc<LaneReader>, std::thread::JoinHandle<()>)> {
        let reader =
            Arc::new(LaneReader { queues: Mutex::default(), wake: Arc::default(), stopped: AtomicBool::new(false) });
        let (running, stopping) = (Arc::clone(&reader), Arc::clone(&reader));
        let is_over = move || stopping.stopped.load(Ordering::Acquire);
        let names = (format!("read-{lane}"), format!("reader {lane}"));
        let thread = supervisor::thread(status, names, is_over, move || running.run(&mailbox, &problems))?;
        Ok((reader, thread))
    }

    /// What wakes this reader: partition queues are opened with it.
    pub fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Reads from `queue` from now on.
    pub fn add(&self, partition: Partition, queue: PartitionQueue) {
        self.change(|queues| queues.push((partition, Arc::new(queue))));
    }

    /// Stops reading `partition`. A read under way may still deliver records of its generation.
    pub fn remove(&self, partition: Partition) {
        self.change(|queues| queues.retain(|(other, _)| *other != partition));
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.change(Vec::clear);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<(Partition, Arc<PartitionQueue>)>)) {
        change(&mut self.queues.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.wake();
    }

    fn run(&self, mailbox: &Mailbox, problems: &UnboundedSender<FetchProblem>) {
        let mut found = Vec::new();
        let mut first: usize = 0;
        while !self.stopped.load(Ordering::Acquire) {
            crash::point("part.reader");
            if !mailbox.wait_for_room(IDLE) {
                continue;
            }
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // Each partition comes first in its turn: the first one may fill the whole batch.
            first = (first + 1) % queues.len().max(1);
            queues.rotate_left(first);
            let mut read = 0;
            for (_, queue) in &queues {
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::domain::record::{Headers, PartitionEnd, Record, UnreadableBatch};
    use crate::domain::units::{NextOffset, Offset};

    fn filled(mailbox: &Mailbox, count: i64) {
        for offset in 0..count {
            let (key, payload, headers) = (None, None, Headers::default());
            let record =
                Record { partition: Partition(0), offset: Offset(offset), timestamp_ms: None, key, payload, headers };
            mailbox.fill(|batch, _| {
                batch.push(1, record, |_| {});
                1
            });
        }
    }

    #[test]
    fn few_records_wait_until_they_are_due_and_enough_do_not() {
        let mailbox = Mailbox::new(10_000, 1_000_000);
        assert!(matches!(mailbox.take_now(true), Taken::Nothing));
        filled(&mailbox, 499);
        assert!(matches!(mailbox.take_now(false), Taken::TooFew));
        assert!(matches!(mailbox.take_now(true), Taken::Batch(batch) if batch.len() == 499));
        filled(&mailbox, 500);
        assert!(matches!(mailbox.take_now(false), Taken::Batch(batch) if batch.len() == 500));
        let small = Mailbox::new(3, 1_000_000);
        filled(&small, 3);
        assert!(matches!(small.take_now(false), Taken::Batch(_)), "a full one does not wait");
    }

    /// How often whoever waits was woken.
    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl std::task::Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Calls {
        /// Since they were counted last.
        fn counted(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn whoever_takes_is_woken_at_the_first_record_and_at_enough_and_not_in_between() {
        let calls = Arc::new(Calls::default());
        let waker = Waker::from(Arc::clone(&calls));
        let mut context = Context::from_waker(&waker);
        let not_before = Instant::now() + Duration::from_secs(3600);
        // Enough are 500, or as many or as many bytes as a batch may have at most.
        for (mailbox, enough) in [
            (Mailbox::new(10_000, 1_000_000), 500),
            (Mailbox::new(3, 1_000_000), 3),
            (Mailbox::new(10_000, 70), 7),
            (Mailbox::new(1, 1_000_000), 1),
        ] {
            let mut take = pin!(mailbox.take(not_before));
            assert!(take.as_mut().poll(&mut context).is_pending());
            assert_eq!(calls.counted(), 0);
            let fill_one = || {
                let payload = Some([7; 10].as_slice());
                let (partition, offset, headers) = (Partition(0), Offset(0), Headers::default());
                let record = Record { partition, offset, timestamp_ms: None, key: None, payload, headers };
                mailbox.fill(|batch, _| {
                    batch.push(1, record, |_| {});
                    1
                });
            };
            fill_one();
            assert_eq!(calls.counted(), 1, "it is there, of {enough}");
            for _ in 2..enough {
                assert!(take.as_mut().poll(&mut context).is_pending());
                fill_one();
                assert_eq!(calls.counted(), 0, "it is neither the first nor enough, of {enough}");
            }
            if enough > 1 {
                assert!(take.as_mut().poll(&mut context).is_pending());
                fill_one();
                assert_eq!(calls.counted(), 1, "now they are {enough}");
            }
            let Poll::Ready(batch) = take.as_mut().poll(&mut context) else { panic!("{enough} are there") };
            assert_eq!(batch.len(), enough);
        }
    }

    #[tokio::test]
    async fn what_comes_while_nobody_waits_is_found_by_whoever_takes_next() {
        let mut context = Context::from_waker(Waker::noop());
        let mailbox = Mailbox::new(10_000, 1_000_000);
        let not_before = Instant::now() + Duration::from_secs(3600);
        filled(&mailbox, 1);
        {
            let mut given_up = pin!(mailbox.take(not_before));
            assert!(given_up.as_mut().poll(&mut context).is_pending(), "one is too few");
            filled(&mailbox, 499);
        }
        // It was woken and never looked: a lane that had something else to do.
        let mut take = pin!(mailbox.take(not_before));
        let Poll::Ready(batch) = take.as_mut().poll(&mut context) else { panic!("500 are enough") };
        assert_eq!(batch.len(), 500);
        // What woke it is used up by the look that finds nothing, and the next record wakes it again.
        let calls = Arc::new(Calls::default());
        let waker = Waker::from(Arc::clone(&calls));
        let mut context = Context::from_waker(&waker);
        let mut take = pin!(mailbox.take(Instant::now()));
        assert!(take.as_mut().poll(&mut context).is_pending());
        filled(&mailbox, 1);
        assert_eq!(calls.counted(), 1);
        assert!(take.as_mut().poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn an_end_without_records_and_what_cannot_be_read_wake_whoever_takes_and_a_problem_does_not() {
        let calls = Arc::new(Calls::default());
        let waker = Waker::from(Arc::clone(&calls));
        let mut context = Context::from_waker(&waker);
        let mailbox = Mailbox::new(10_000, 1_000_000);
        let mut take = pin!(mailbox.take(Instant::now()));
        assert!(take.as_mut().poll(&mut context).is_pending());
        // The reader counts it, so that it looks again, and it goes another way.
        mailbox.fill(|_, _| 1);
        assert_eq!(calls.counted(), 0);
        let (partition, generation) = (Partition(0), 1);
        mailbox.fill(|batch, _| {
            batch.push_end(PartitionEnd { partition, generation, next_offset: NextOffset(7) });
            1
        });
        assert_eq!(calls.counted(), 1);
        let Poll::Ready(batch) = take.as_mut().poll(&mut context) else { panic!("an end is there") };
        assert_eq!((batch.len(), batch.ends().len()), (0, 1));
        let mut take = pin!(mailbox.take(Instant::now()));
        assert!(take.as_mut().poll(&mut context).is_pending());
        mailbox.fill(|batch, _| {
            batch.push_unreadable(UnreadableBatch { partition, generation, offset: Offset(7), text: String::new() });
            1
        });
        assert_eq!(calls.counted(), 1);
        assert!(take.as_mut().poll(&mut context).is_ready());
    }

    /// Takes what is there; gives the bytes that it had room for.
    fn go_round(mailbox: &Mailbox) -> usize {
        let Taken::Batch(batch) = mailbox.take_now(true) else { panic!("nothing is there") };
        let room = batch.room();
        mailbox.done(batch);
        room
    }

    #[test]
    fn memory_goes_round_while_large_batches_come_and_is_let_go_behind_them_whatever_else_comes() {
        let payload = vec![0; 100_000];
        let (key, headers) = (None, Headers::default());
        let large = Record {
            partition: Partition(0),
            offset: Offset(0),
            timestamp_ms: None,
            key,
            payload: Some(&payload),
            headers,
        };
        let mailbox = Mailbox::new(10, 1_000_000);
        let fill = || {
            mailbox.fill(|batch, _| {
                batch.push(1, large, |_| {});
                1
            })
        };
        fill();
        mailbox.keep();
        assert!(go_round(&mailbox) >= 100_000);
        for _ in 0..3 {
            filled(&mailbox, 1);
            go_round(&mailbox);
        }
        filled(&mailbox, 1);
        assert!(go_round(&mailbox) >= 100_000, "it is filled again");
        // Both that go round are large ones now, and something is there all the time.
        fill();
        go_round(&mailbox);
        filled(&mailbox, 1);
        mailbox.shrink();
        go_round(&mailbox);
        for _ in 0..3 {
            filled(&mailbox, 1);
            assert!(go_round(&mailbox) < 100_000);
        }
    }

    #[test]
    fn what_was_in_a_batch_that_is_done_is_in_none_of_the_next() {
        let mailbox = Mailbox::new(10, 1_000_000);
        mailbox.keep();
        for round in 1..=3 {
            filled(&mailbox, round);
            let Taken::Batch(batch) = mailbox.take_now(true) else { panic!() };
            assert_eq!(batch.iter().count() as i64, round);
            mailbox.done(batch);
            assert!(matches!(mailbox.take_now(true), Taken::Nothing));
        }
        mailbox.shrink();
        filled(&mailbox, 2);
        assert!(matches!(mailbox.take_now(true), Taken::Batch(batch) if batch.len() == 2));
    }

    #[test]
    fn a_batch_never_holds_more_than_its_bound() {
        let (key, payload, headers) = (None, None, Headers::default());
        let record = Record { partition: Partition(0), offset: Offset(0), timestamp_ms: None, key, payload, headers };
        let mailbox = Mailbox::new(3, 1_000);
        let mut rooms = Vec::new();
        for _ in 0..5 {
            mailbox.fill(|batch, room| {
                rooms.push(room);
                let taken = room.min(2);
                for _ in 0..taken {
                    batch.push(1, record, |_| {});
                }
                taken
            });
        }
        assert_eq!(rooms, [3, 1, 0, 0, 0]);
        assert!(!mailbox.wait_for_room(Duration::ZERO));
    }
}
