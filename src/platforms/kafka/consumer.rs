//! Group membership: one thread that polls the consumer without pause and obeys assignments. Takes no decisions:
//! what a rebalance means is for whoever receives its events.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc::UnboundedSender;

use crate::config::KafkaSettings;
use crate::crash;
use crate::domain::units::{NextOffset, Partition};
use crate::failure::panic_text;
use crate::platforms::kafka::probe::is_too_large;
use crate::platforms::kafka::{base_config, limit_answers};

/// How long one poll waits: the longest time until a command is obeyed.
const POLL: Duration = Duration::from_millis(10);
/// How often progress is reported to the group.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// What the group says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    /// These partitions are ours now; answer with [`Command::Assign`] for each.
    Assigned(Vec<Partition>),
    /// These partitions have to be given up; answer with [`Command::Unassign`].
    Revoked(Vec<Partition>),
    /// The client reports an error.
    Error(String),
    /// An answer of the broker was too large to be received; it asks again and again.
    AnswerTooLarge(String),
    /// The thread that polls is there no more: what its panic said.
    PollEnded(String),
}

/// What the thread has to do.
#[derive(Debug)]
pub enum Command {
    /// Start fetching these partitions from these positions on.
    Assign(Vec<(Partition, NextOffset)>),
    /// Stop fetching these partitions.
    Unassign(Vec<Partition>),
    /// Report progress to the group. A report only, it may be lost.
    Acknowledge(Vec<(Partition, NextOffset)>),
    /// Leave the group and end.
    Stop,
}

/// librdkafka's callbacks, turned into [`GroupEvent`]s.
pub struct GroupContext {
    events: UnboundedSender<GroupEvent>,
    leaving: AtomicBool,
}

impl ClientContext for GroupContext {
    fn error(&self, error: KafkaError, reason: &str) {
        let text = format!("{error}: {reason}");
        self.tell(if is_too_large(&error) { GroupEvent::AnswerTooLarge(text) } else { GroupEvent::Error(text) });
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: rd_kafka_resp_err_t, list: &mut TopicPartitionList) {
        let assigned = err == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            let obeyed = if assigned { consumer.incremental_assign(list) } else { consumer.incremental_unassign(list) };
            if let Err(error) = obeyed {
                tracing::debug!(error = %error, "rebalance while leaving");
            }
            return;
        }
        let partitions = list.elements().iter().map(|element| Partition(element.partition())).collect();
        self.tell(if assigned { GroupEvent::Assigned(partitions) } else { GroupEvent::Revoked(partitions) });
    }
}

impl GroupContext {
    fn tell(&self, event: GroupEvent) {
        if self.events.send(event).is_err() {
            tracing::debug!("group event after the end of the view");
        }
    }
}

/// A member of a consumer group.
pub struct GroupMember {
    /// The client, for opening partition queues.
    pub consumer: Arc<BaseConsumer<GroupContext>>,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl GroupMember {
    /// Joins `group` for `topic`; `partitions` is how many the topic has (it divides the prefetch memory).
    pub fn join(
        settings: &KafkaSettings,
        group: &str,
        topic: &str,
        partitions: usize,
        events: UnboundedSender<GroupEvent>,
    ) -> Result<GroupMember, KafkaError> {
        let queue_kilobytes = (settings.queue_bytes / partitions.max(1) / 1024).max(64);
        let mut config = base_config(settings);
        limit_answers(&mut config, settings);
        config
            .set("group.id", group)
            .set("session.timeout.ms", settings.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (settings.session_timeout_ms / 10).clamp(50, 3_000).to_string())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            // Without it a rotten batch that is not compressed is read as if nothing had happened.
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", settings.fetch_wait_max_ms.to_string())
            .set("fetch.min.bytes", settings.fetch_min_bytes.to_string())
            .set("fetch.error.backoff.ms", "100")
            // How long fetching rests after the queue was full: a second unless said otherwise.
            .set("fetch.queue.backoff.ms", "2")
            // Partitions that are added to the topic are noticed within that time.
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("queued.max.messages.kbytes", queue_kilobytes.to_string())
            .set("queued.min.messages", "100000");
        if !settings.instance_id.is_empty() {
            config.set("group.instance.id", format!("{}-{group}", settings.instance_id));
        }
        let context = GroupContext { events, leaving: AtomicBool::new(false) };
        let consumer: Arc<BaseConsumer<GroupContext>> = Arc::new(config.create_with_context(context)?);
        consumer.subscribe(&[topic])?;
        let (commands, received) = mpsc::channel();
        let membership = Membership {
            consumer: Arc::clone(&consumer),
            topic: topic.to_owned(),
            assigned: BTreeSet::new(),
            unreported: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("poll-{topic}"))
            .spawn(move || membership.run_to_the_end(&received))
            .map_err(|error| KafkaError::ClientCreation(format!("cannot start the poll thread: {error}")))?;
        Ok(GroupMember { consumer, commands, thread: Some(thread) })
    }

    /// Queues a command.
    pub fn command(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::debug!("command after the end of the poll thread");
        }
    }

    /// A handle that only acknowledges.
    pub fn acknowledger(&self) -> mpsc::Sender<Command> {
        self.commands.clone()
    }

    /// From now on the group's news are obeyed and told to nobody: this membership is about to end.
    pub fn hush(&self) {
        self.consumer.context().leaving.store(true, Ordering::Release);
    }

    /// Reports the last progress and leaves the group. All [`super::fetch::PartitionQueue`]s must be gone by now.
    pub fn leave(mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the poll thread panicked");
        }
        // Dropping the client leaves the group.
    }
}

/// A member that is dropped without leaving, because its coordinator died, still obeys the group: else the client would
/// wait for an answer when it is closed.
impl Drop for GroupMember {
    fn drop(&mut self) {
        self.hush();
    }
}

struct Membership {
    consumer: Arc<BaseConsumer<GroupContext>>,
    topic: String,
    assigned: BTreeSet<Partition>,
    unreported: BTreeMap<Partition, NextOffset>,
}

impl Membership {
    fn run_to_the_end(self, commands: &mpsc::Receiver<Command>) {
        let consumer = Arc::clone(&self.consumer);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run(commands))) {
            consumer.context().tell(GroupEvent::PollEnded(panic_text(&*panic)));
        }
    }

    fn run(mut self, commands: &mpsc::Receiver<Command>) {
        let mut last_report = Instant::now();
        loop {
            crash::point("part.poll");
            // Records go to the partition queues, so a poll yields only errors; events arrive through the context.
            if let Some(Err(error)) = self.consumer.poll(POLL) {
                self.consumer.context().tell(GroupEvent::Error(error.to_string()));
            }
            loop {
                match commands.try_recv() {
                    Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => {
                        self.report(CommitMode::Sync);
                        return;
                    }
                    Ok(command) => self.obey(command),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            if last_report.elapsed() >= REPORT_INTERVAL {
                self.report(CommitMode::Async);
                last_report = Instant::now();
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Assign(positions) => {
                let list = self.list(positions.iter().map(|(partition, next)| (*partition, Offset::Offset(next.0))));
                match self.consumer.incremental_assign(&list) {
                    Ok(()) => self.assigned.extend(positions.iter().map(|(partition, _)| *partition)),
                    Err(error) => self.consumer.context().tell(GroupEvent::Error(format!("assign failed: {error}"))),
                }
            }
            Command::Unassign(partitions) => self.unassign(&partitions),
            Command::Acknowledge(positions) => self.unreported.extend(positions),
            Command::Stop => {}
        }
    }

    /// librdkafka refuses to take away what it was not given, and a revoked partition may never have been assigned
    /// (Postgres was away): those are given first.
    fn unassign(&mut self, partitions: &[Partition]) {
        self.report(CommitMode::Async);
        let missing: Vec<Partition> = partitions.iter().copied().filter(|p| !self.assigned.contains(p)).collect();
        let steps = [
            self.consumer.incremental_assign(&self.list(missing.iter().map(|p| (*p, Offset::End)))),
            self.consumer.incremental_unassign(&self.list(partitions.iter().map(|p| (*p, Offset::Invalid)))),
        ];
        for error in steps.into_iter().filter_map(Result::err) {
            self.consumer.context().tell(GroupEvent::Error(format!("unassign failed: {error}")));
        }
        for partition in partitions {
            self.assigned.remove(partition);
            self.unreported.remove(partition);
        }
    }

    fn report(&mut self, mode: CommitMode) {
        if self.unreported.is_empty() {
            return;
        }
        let list = self.list(self.unreported.iter().map(|(partition, next)| (*partition, Offset::Offset(next.0))));
        if let Err(error) = self.consumer.commit(&list, mode) {
            tracing::debug!(error = %error, "progress was not reported to the group");
        }
        self.unreported.clear();
    }

    fn list(&self, positions: impl Iterator<Item = (Partition, Offset)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in positions {
            if let Err(error) = list.add_partition_offset(&self.topic, partition.0, offset) {
                tracing::error!(partition = partition.0, error = %error, "offset was not accepted");
            }
        }
        list
    }
}
