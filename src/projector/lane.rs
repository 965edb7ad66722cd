//! A lane: applies the records of its partitions, one transaction after the other.
//!
//! Here live ownership, retries, bisection and what to do about each failure. What a batch means, and what is written of
//! it, is its [`Applier`]'s; how a commit is fenced is in [`crate::store::fence`].

use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::domain::record::RecordBatch;
use crate::domain::units::{NextOffset, Partition};
use crate::failure::{Failure, Halt, Tries, Waiting};
use crate::platforms::kafka::consumer::Command;
use crate::projector::applier::{Applier, Blame, Done, Owned, Part, Partitions};
use crate::projector::context::ViewContext;
use crate::projector::mailbox::Mailbox;
use crate::status::{Pause, Reporter};
use crate::store::progress;
use crate::telemetry::traces::{self, Attempt, Step, Steps};

/// Something to do without records, and who waits until it is over.
pub type Errand<E> = (E, oneshot::Sender<()>);

/// What a lane has to do beside applying records.
#[derive(Debug)]
pub enum LaneCommand {
    /// Apply records of this partition from now on.
    Open {
        /// Partition.
        partition: Partition,
        /// The assignment.
        owned: Owned,
        /// Where its progress is reported.
        acknowledgements: mpsc::Sender<Command>,
    },
    /// Let go of this partition; answered when no transaction of it is under way any more.
    Close(Partition, oneshot::Sender<()>),
}

/// What a lane reports.
#[derive(Debug)]
pub enum LaneEvent {
    /// The partition was let go: a bound or an unreadable batch was reached, or its fence was lost. Try again later.
    LetGo {
        /// Partition.
        partition: Partition,
        /// Its assignment.
        generation: u64,
        /// Why.
        pause: Pause,
    },
    /// Going on would be wrong.
    Halted(Halt),
}

/// A batch on its way: which part is to be tried next.
struct Job<'a, C> {
    batch: &'a RecordBatch,
    /// First record not done.
    start: usize,
    /// One past the last record of the next attempt.
    end: usize,
    /// What the applier keeps between attempts.
    course: C,
    /// When the first record of the batch came; taken by the first attempt.
    first_came: Option<SystemTime>,
}

/// A batch of so many records, or bytes, has memory that small ones do not use up.
const LARGE: (usize, usize) = (10_000, 1024 * 1024);
/// How long after the last large batch it is let go.
const QUIET: Duration = Duration::from_secs(1);
/// How often a lane looks whether its connection is still there.
const LOOK: Duration = Duration::from_secs(1);

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// One lane of a view.
pub struct Lane<A: Applier> {
    applier: A,
    context: Arc<ViewContext>,
    owned: Partitions,
    commands: UnboundedReceiver<LaneCommand>,
    errands: UnboundedReceiver<Errand<A::Errand>>,
    events: UnboundedSender<LaneEvent>,
    acknowledgements: Option<mpsc::Sender<Command>>,
    /// What is left to do of batches and errands that are done otherwise: a step of it after each of them, so that a long
    /// drain holds nobody up for longer than one step takes.
    left: Option<A::Course>,
    /// Whether it has had a connection.
    has_connected: bool,
    /// As it is called in what it reports.
    reporter: Reporter,
}

impl<A: Applier> Lane<A> {
    /// The lane of that number, without partitions.
    pub fn new(
        applier: A,
        context: Arc<ViewContext>,
        number: usize,
        (commands, errands): (UnboundedReceiver<LaneCommand>, UnboundedReceiver<Errand<A::Errand>>),
        events: UnboundedSender<LaneEvent>,
    ) -> Self {
        let (owned, acknowledgements, left, reporter) = (Partitions::new(), None, None, Reporter::Lane(number));
        let has_connected = false;
        Lane { applier, context, owned, commands, errands, events, acknowledgements, left, has_connected, reporter }
    }

    /// Applies what arrives until `stop`; a batch under way is finished or abandoned.
    pub async fn run(mut self, mailbox: Arc<Mailbox>, stop: CancellationToken) {
        let interval = Duration::from_millis(self.context.settings.min_commit_interval_ms);
        let (mut not_before, mut give_back_at) = (Instant::now(), None);
        let enough = self.applier.enough();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.step(&stop) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(command) = self.commands.recv() => self.obey(command),
                Some((errand, done)) = self.errands.recv() => {
                    self.run_errand(errand, &stop).await;
                    drop(done);
                }
                () = enough.cancelled() => return self.finish(&stop).await,
                _ = look.tick() => self.look().await,
                () = at(give_back_at) => {
                    give_back_at = None;
                    mailbox.shrink();
                    self.applier.rest();
                }
                batch = mailbox.take(not_before) => {
                    not_before = Instant::now() + interval;
                    if batch.len() >= LARGE.0 || batch.size() >= LARGE.1 {
                        give_back_at = Some(Instant::now() + QUIET);
                        mailbox.keep();
                    }
                    crash::point("batch.taken");
                    // Stopped only after the coordinator's patience is over: then the transaction is abandoned with
                    // its connection.
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = self.apply(&batch, mailbox.first_came(), &stop) => {}
                    }
                    mailbox.done(batch);
                }
                // Nobody wants anything: the next step.
                () = std::future::ready(()), if self.left.is_some() => {}
            }
        }
    }

    /// A lane without work finds out, too, that its connection is lost: the Postgres that answers next may have less than was
    /// committed, and nobody but a lane knows how much that was.
    async fn look(&mut self) {
        if !self.has_connected || self.owned.is_empty() {
            return;
        }
        let Err(failure) = self.connect().await else { return };
        if let Err(halt) = self.applier.survives(&failure) {
            return self.halt(halt);
        }
        match failure {
            Failure::Fenced(partitions) => self.lose(partitions),
            Failure::Halt(halt) => self.halt(halt),
            // While it is away there is nothing to be told; the next look is soon.
            _ => {}
        }
    }

    /// The fence of these partitions is lost.
    fn lose(&mut self, partitions: Vec<Partition>) {
        self.context.metrics.fenced.with_label_values(&[self.context.source.view]).inc();
        for partition in partitions {
            self.let_go(partition, Pause::not_owner());
        }
    }

    fn obey(&mut self, command: LaneCommand) {
        match command {
            LaneCommand::Open { partition, owned, acknowledgements } => match self.applier.opened(partition) {
                Ok(()) => {
                    self.owned.insert(partition, owned);
                    self.acknowledgements = Some(acknowledgements);
                }
                Err(halt) => self.halt(halt),
            },
            LaneCommand::Close(partition, done) => {
                self.owned.remove(&partition);
                if done.send(()).is_err() {
                    tracing::debug!(partition = partition.0, "nobody waited for the partition to close");
                }
            }
        }
    }

    async fn finish(&mut self, stop: &CancellationToken) {
        while self.left.is_some() && !stop.is_cancelled() {
            self.step(stop).await;
        }
        if let Err(halt) = self.applier.finish(&self.owned).await {
            self.halt(halt);
        }
    }

    async fn apply(&mut self, batch: &RecordBatch, first_came: Option<SystemTime>, stop: &CancellationToken) {
        let mut job = Job { batch, start: 0, end: batch.len(), course: A::set_out(None), first_came };
        self.work_off(&mut job, stop).await;
        self.leave(job.course);
        for broken in batch.unreadable() {
            if self.owned.get(&broken.partition).is_some_and(|owned| owned.generation == broken.generation) {
                self.let_go(broken.partition, Pause::unreadable(broken.partition, broken.offset, &broken.text));
            }
        }
    }

    async fn run_errand(&mut self, errand: A::Errand, stop: &CancellationToken) {
        let batch = RecordBatch::default();
        let mut job = Job { batch: &batch, start: 0, end: 0, course: A::set_out(Some(errand)), first_came: None };
        self.work_off(&mut job, stop).await;
        self.leave(job.course);
    }

    /// One step of what is left.
    async fn step(&mut self, stop: &CancellationToken) {
        let Some(course) = self.left.take() else { return };
        let batch = RecordBatch::default();
        let mut job = Job { batch: &batch, start: 0, end: 0, course, first_came: None };
        self.work_off(&mut job, stop).await;
        self.leave(job.course);
    }

    /// Keeps what a course has left to do, if it can still be done.
    fn leave(&mut self, course: A::Course) {
        if A::has_more(&course) && !self.owned.is_empty() {
            self.left = Some(match self.left.take() {
                Some(left) => A::join(left, course),
                None => course,
            });
        }
    }

    /// Tries until every record of the job is committed, or its partitions are not ours any more; then it waits for
    /// nothing. What is left to do without records takes one attempt more for each step.
    async fn work_off(&mut self, job: &mut Job<'_, A::Course>, stop: &CancellationToken) {
        self.try_all(job, stop).await;
        self.context.status.clear(self.reporter);
    }

    async fn try_all(&mut self, job: &mut Job<'_, A::Course>, stop: &CancellationToken) {
        let mut tries = Tries::default();
        loop {
            if self.owned.is_empty() || stop.is_cancelled() {
                return;
            }
            match self.attempt(job).await {
                Ok(done) => {
                    tries = Tries::default();
                    self.context.status.clear(self.reporter);
                    self.moved(done);
                    job.start = job.end;
                    job.end = job.batch.len();
                    if job.start == job.end {
                        return;
                    }
                }
                Err(failure) => {
                    if let Err(halt) = self.applier.survives(&failure) {
                        return self.halt(halt);
                    }
                    tries.count(&failure);
                    if !self.recover(failure, job, &mut tries, stop).await {
                        return;
                    }
                }
            }
        }
    }

    async fn attempt(&mut self, job: &mut Job<'_, A::Course>) -> Result<Done, Failure> {
        let mut steps = Steps::begin(job.first_came.take());
        let connected = self.connect().await;
        let skipped = self.context.skipped();
        let part = Part { batch: job.batch, start: job.start, end: job.end, owned: &self.owned, skipped: &skipped };
        let tried = match connected {
            Ok(()) => {
                steps.done(Step::Connect);
                self.applier.attempt(&part, &mut job.course, &mut steps).await
            }
            Err(failure) => Err(failure),
        };
        let (source, failed) = (&self.context.source, tried.as_ref().err().map(Failure::name));
        let (topic, group) = (source.topic.as_str(), self.context.status.group.as_str());
        let attempt = Attempt { view: source.view, build: source.build, topic, group, failed };
        traces::tell(&attempt, part.records().map(|(_, record)| record), steps);
        tried
    }

    /// After a commit: where the partitions stand now, for whoever asks, and the report to the group.
    fn moved(&mut self, done: Done) {
        let now = jiff::Timestamp::now();
        for advance in &done.advances {
            if let Some(owned) = self.owned.get_mut(&advance.partition) {
                owned.next_offset = advance.next_offset;
                owned.commits = advance.commit;
            }
            self.context.status.update_partition(advance.partition, |owned| {
                owned.next_offset = advance.next_offset;
                owned.paused = None;
                owned.last_commit_at = Some(now);
            });
        }
        if !done.advances.is_empty() {
            self.context.status.committed();
            self.acknowledge(done.advances.iter().map(|advance| (advance.partition, advance.next_offset)).collect());
        }
        for blocked in done.blocked {
            self.let_go(blocked.partition, Pause::park_bound(&blocked.why, blocked.offset));
        }
    }

    /// Prepares the next attempt after a failure; `false` ends the job.
    async fn recover(
        &mut self,
        failure: Failure,
        job: &mut Job<'_, A::Course>,
        tries: &mut Tries,
        stop: &CancellationToken,
    ) -> bool {
        match failure {
            Failure::Retry(reason) => {
                self.waits_for(Waiting::Database, &reason);
                self.wait(tries.next_wait(), stop).await;
            }
            Failure::ReadOnly(reason) => {
                self.waits_for(Waiting::Database, &reason);
                // A session keeps what it was told when it began: of a server that takes writes again, or of another one
                // behind the same address, only a new connection knows.
                self.applier.disconnect();
                self.wait(tries.next_wait(), stop).await;
            }
            Failure::KafkaAway(reason) => {
                self.waits_for(Waiting::Kafka, &reason);
                self.wait(tries.next_wait(), stop).await;
            }
            Failure::RegistryAway(reason) => {
                self.waits_for(Waiting::Registry, &reason);
                self.wait(tries.next_wait(), stop).await;
            }
            Failure::UnknownSchema { partition, offset, detail } => {
                self.let_go(partition, Pause::schema_not_found(partition, offset, &detail));
            }
            Failure::FirstOnly(records) => job.end = job.start + records,
            Failure::TooMuch(reason) => {
                self.waits_for(Waiting::Database, &reason);
                job.end = job.start + (job.end - job.start).div_ceil(2);
                A::ease(&mut job.course);
                self.wait(tries.next_wait(), stop).await;
            }
            Failure::Stale => {
                self.applier.forget();
                // A constraint that is violated for ever is our bug.
                if tries.are_stale_for_ever() {
                    self.halt(Halt {
                        code: "internal_error",
                        detail: "stored rows do not match what was loaded a moment before, again and again".into(),
                        next_step: "this is a bug: report it with the log, then restart",
                    });
                    return false;
                }
                self.wait(tries.next_wait(), stop).await;
            }
            Failure::Decided(numbers) => {
                self.applier.forget();
                for (partition, decisions) in numbers {
                    self.owned.entry(partition).and_modify(|owned| owned.decisions = decisions);
                }
            }
            Failure::Fenced(partitions) => self.lose(partitions),
            Failure::Record(_) | Failure::ReusedEventId { .. } => match self.blame(failure, job).await {
                Ok(()) => {}
                Err(failure) => return Box::pin(self.recover(failure, job, tries, stop)).await,
            },
            Failure::Halt(halt) => {
                self.halt(halt);
                return false;
            }
        }
        true
    }

    fn waits_for(&self, waiting: Waiting, reason: &str) {
        self.context.status.report(self.reporter, waiting, reason);
    }

    /// Some event of the attempt cannot be stored: halves the attempt until it is alone, then it is refused.
    async fn blame(&mut self, failure: Failure, job: &mut Job<'_, A::Course>) -> Result<(), Failure> {
        self.connect().await?;
        let skipped = self.context.skipped();
        let part = Part { batch: job.batch, start: job.start, end: job.end, owned: &self.owned, skipped: &skipped };
        match self.applier.blame(&part, &mut job.course, failure).await? {
            Blame::Settled => {}
            Blame::Halve => job.end = job.start + part.len() / 2,
            Blame::KeyFirst => job.end = job.start,
        }
        // To find out takes attempts without a wait between them, perhaps many.
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
        Ok(())
    }

    /// Waits, but obeys commands: a partition can be taken away while Postgres is.
    async fn wait(&mut self, duration: Duration, stop: &CancellationToken) {
        let deadline = tokio::time::sleep(duration);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = &mut deadline => return,
                Some(command) = self.commands.recv() => {
                    self.obey(command);
                    if self.owned.is_empty() {
                        return;
                    }
                }
                // Whoever sent it will ask again.
                Some(errand) = self.errands.recv() => drop(errand),
            }
        }
    }

    fn let_go(&mut self, partition: Partition, pause: Pause) {
        if let Err(halt) = self.applier.may_let_go(partition, &pause) {
            return self.halt(halt);
        }
        if let Some(owned) = self.owned.remove(&partition) {
            self.tell(LaneEvent::LetGo { partition, generation: owned.generation, pause });
        }
    }

    /// Ends all work of this lane, and tells why.
    fn halt(&mut self, halt: Halt) {
        self.owned.clear();
        self.tell(LaneEvent::Halted(halt));
    }

    fn tell(&self, event: LaneEvent) {
        if self.events.send(event).is_err() {
            tracing::debug!("lane event after the end of the view");
        }
    }

    /// Reports committed progress to the group.
    fn acknowledge(&self, positions: Vec<(Partition, NextOffset)>) {
        crash::point("acknowledge.before");
        let Some(group) = &self.acknowledgements else { return };
        if group.send(Command::Acknowledge(positions)).is_err() {
            tracing::debug!("acknowledgement after the end of the consumer");
        }
        crash::point("acknowledge.done");
    }

    /// Makes sure of a connection. After a new one nothing in memory is believed: progress is read again, which also tells
    /// how a commit ended whose answer was lost.
    async fn connect(&mut self) -> Result<(), Failure> {
        if !self.applier.connect().await? {
            return Ok(());
        }
        let Some(client) = self.applier.connection() else { return Err(no_connection()) };
        let partitions: Vec<Partition> = self.owned.keys().copied().collect();
        let stored = progress::read(client, &self.context.source, &partitions)
            .await
            .map_err(|error| crate::store::sqlstate::classify(error, None));
        let stored = match stored {
            Ok(stored) => stored,
            Err(failure) => {
                // Asked again over the next connection: what is not read is not believed.
                self.applier.disconnect();
                return Err(failure);
            }
        };
        let (owned, view) = (&mut self.owned, self.context.source.view);
        let is_lost = |partition: &Partition| match (
            owned.get_mut(partition),
            stored.iter().find(|row| row.partition == *partition),
        ) {
            (Some(owned), Some(row)) => !owned.goes_on_from(view, row),
            (owned, _) => owned.is_some(),
        };
        let fenced: Vec<Partition> = partitions.into_iter().filter(is_lost).collect();
        self.has_connected = true;
        if fenced.is_empty() { Ok(()) } else { Err(Failure::Fenced(fenced)) }
    }
}

/// A connection is needed and there is none.
pub fn no_connection() -> Failure {
    Failure::Retry("the connection was lost".to_owned())
}
