//! Group membership: one thread that polls the consumer without pause and obeys assignments. Takes no decisions:
//! what a rebalance means is for whoever receives its events.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
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
use crate::platforms::kafka::closing::Closing;
use crate::platforms::kafka::dead_member::is_member;
use crate::platforms::kafka::listener::{explain, steady};
use crate::platforms::kafka::prefetch::Prefetch;
use crate::platforms::kafka::trouble::{Trouble, trouble};
use crate::platforms::kafka::{consumer_config, open};

/// How long one poll waits: the longest time until a command is obeyed.
const POLL: Duration = Duration::from_millis(10);
/// How often progress is reported to the group.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// How long a group in the middle of a rebalance may take to take its partitions back from one who leaves.
const LEAVING: Duration = Duration::from_secs(1);

/// What the group says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    /// These partitions are ours now; answer with [`Command::Assign`] for each.
    Assigned(Vec<Partition>),
    /// These partitions have to be given up; answer with [`Command::Unassign`].
    Revoked(Vec<Partition>),
    /// The client reports an error that passes by itself.
    Error(String),
    /// The group does not take us, or not any more, until somebody does what the words say.
    Refused(String),
    /// The client is over for good: join anew.
    Lost(Loss),
    /// An answer of the broker was too large to be received; it asks again and again.
    AnswerTooLarge(String),
    /// The thread that polls is there no more: what its panic said.
    PollEnded(String),
}

/// How a client was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Whether another process has joined under the same name.
    pub is_fenced: bool,
    /// What the client says.
    pub text: String,
}

/// By which name an instance is a member of its group: its `group.instance.id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberName {
    /// The operator's, `kafka.instance_id`. Whoever stops comes back to what it had, so stopping tells the group nothing.
    Given(String),
    /// Our own, by the number of our seat. Whoever stops leaves the group.
    Seat(i32),
}

impl MemberName {
    /// The `group.instance.id` in that group.
    pub fn instance_id(&self, group: &str) -> String {
        match self {
            MemberName::Given(name) => format!("{name}-{group}"),
            MemberName::Seat(number) => format!("{SEAT}{number}"),
        }
    }

    /// The seat of a member of that `group.instance.id`; `None` for a name that is none of ours.
    pub fn seat_of(instance_id: &str) -> Option<i32> {
        instance_id.strip_prefix(SEAT)?.parse().ok().filter(|number| *number >= 0)
    }
}

/// How the names of seats begin.
const SEAT: &str = "streamview-seat-";

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

/// News of one membership, by its number: those of one that was replaced count no more.
pub type GroupNews = (u64, GroupEvent);

/// librdkafka's callbacks, turned into [`GroupEvent`]s.
pub struct GroupContext {
    settings: KafkaSettings,
    number: u64,
    events: UnboundedSender<GroupNews>,
    leaving: AtomicBool,
    /// Whether nobody polls any more: what the group says now, it says while the client is closed.
    closing: Closing,
    /// The rebalance that was told and not obeyed yet.
    unanswered: Mutex<Option<Rebalance>>,
}

/// What the group waits for; a client that is closed before it was given waits with it for ever.
struct Rebalance {
    is_assigned: bool,
    list: TopicPartitionList,
}

impl ClientContext for GroupContext {
    fn error(&self, error: KafkaError, reason: &str) {
        let text = format!("{error}: {reason}");
        self.tell(match error.rdkafka_error_code().map_or(Trouble::Passing, |code| trouble(code, reason)) {
            Trouble::TooLarge => GroupEvent::AnswerTooLarge(text),
            // Said once in half a minute at most, and heartbeats have a thread of their own.
            Trouble::Refused(refusal) => GroupEvent::Refused(explain(&self.settings, refusal, &steady(reason))),
            // What is fatal is asked for by the thread that polls: its first reason counts.
            Trouble::Fenced | Trouble::Fatal | Trouble::Passing => GroupEvent::Error(text),
        });
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: rd_kafka_resp_err_t, list: &mut TopicPartitionList) {
        let assigned = err == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            if self.closing.needs_answer(consumer) {
                obey_leaving(consumer, assigned, list, self.closing.has_begun());
            }
            return;
        }
        *self.unanswered() = Some(Rebalance { is_assigned: assigned, list: list.clone() });
        let partitions = list.elements().iter().map(|element| Partition(element.partition())).collect();
        self.tell(if assigned { GroupEvent::Assigned(partitions) } else { GroupEvent::Revoked(partitions) });
    }
}

/// From now on the group is obeyed without asking: also in what was told to a coordinator that looks no more.
fn settle(consumer: &BaseConsumer<GroupContext>) {
    let context = consumer.context();
    context.leaving.store(true, Ordering::Release);
    if let Some(Rebalance { is_assigned, list }) = context.unanswered().take() {
        // Nobody closes a client that is still held here.
        obey_leaving(consumer, is_assigned, &list, false);
    }
}

/// Who leaves does as the group says, and tells nobody.
fn obey_leaving(consumer: &BaseConsumer<GroupContext>, is_assigned: bool, list: &TopicPartitionList, is_closing: bool) {
    let obeyed = if is_assigned {
        // Nothing is taken just to be given back: librdkafka would ask for committed positions, and close only behind that.
        consumer.incremental_assign(&TopicPartitionList::new())
    } else if is_closing {
        // One call gives up all there is, and a second one might never return: see [`Closing::needs_answer`].
        consumer.incremental_unassign(list)
    } else {
        give_up(consumer, list)
    };
    if let Err(error) = obeyed {
        tracing::debug!(error = %error, "rebalance while leaving");
    }
}

/// librdkafka refuses to take away what it was not given, and most of it is given up already when we leave.
fn give_up(consumer: &BaseConsumer<GroupContext>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    let assigned = consumer.assignment()?;
    let mut missing = TopicPartitionList::new();
    for element in list.elements() {
        if assigned.find_partition(element.topic(), element.partition()).is_none() {
            missing.add_partition_offset(element.topic(), element.partition(), Offset::End)?;
        }
    }
    consumer.incremental_assign(&missing)?;
    consumer.incremental_unassign(list)
}

impl GroupContext {
    fn tell(&self, event: GroupEvent) {
        if self.events.send((self.number, event)).is_err() {
            tracing::debug!("group event after the end of the view");
        }
    }

    fn unanswered(&self) -> MutexGuard<'_, Option<Rebalance>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group was given what it waits for, if it waits for that.
    fn has_answered(&self, is_assigned: bool) {
        self.unanswered().take_if(|rebalance| rebalance.is_assigned == is_assigned);
    }
}

/// A member of a consumer group.
pub struct GroupMember {
    /// The client, for opening partition queues.
    pub consumer: Arc<BaseConsumer<GroupContext>>,
    /// Number of this membership; its news carry it.
    pub number: u64,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// What every client that joins `group` has to agree on with its other members.
pub(super) fn membership_config(config: &mut ClientConfig, settings: &KafkaSettings, group: &str) {
    config
        .set("group.id", group)
        .set("session.timeout.ms", settings.session_timeout_ms.to_string())
        // The client refuses one below the session's time-out; 5 minutes unless said otherwise.
        .set("max.poll.interval.ms", settings.session_timeout_ms.max(300_000).to_string())
        .set("heartbeat.interval.ms", (settings.session_timeout_ms / 10).clamp(50, 3_000).to_string())
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error");
}

impl GroupMember {
    /// Joins `group` for `topic` under a name; `partitions` is how many the topic has (it divides the prefetch memory).
    pub fn join(
        settings: &KafkaSettings,
        (group, topic, partitions): (&str, &str, usize),
        name: &MemberName,
        (number, events): (u64, UnboundedSender<GroupNews>),
    ) -> Result<GroupMember, KafkaError> {
        let ahead = Prefetch::of(settings, partitions);
        let mut config = consumer_config(settings);
        membership_config(&mut config, settings, group);
        config
            .set("group.instance.id", name.instance_id(group))
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            // Without it a rotten batch that is not compressed is read as if nothing had happened.
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", settings.fetch_wait_max_ms.to_string())
            .set("fetch.min.bytes", settings.fetch_min_bytes.to_string())
            .set("fetch.error.backoff.ms", "100")
            // Partitions that are added to the topic are noticed within that time; a heartbeat later all members know.
            .set("topic.metadata.refresh.interval.ms", "2000")
            .set("queued.max.messages.kbytes", ahead.queue_kilobytes.to_string())
            .set("fetch.message.max.bytes", ahead.answer_bytes.to_string())
            .set("queued.min.messages", "100000");
        let context = GroupContext {
            settings: settings.clone(),
            number,
            events,
            leaving: AtomicBool::new(false),
            closing: Closing::default(),
            unanswered: Mutex::default(),
        };
        let consumer: Arc<BaseConsumer<GroupContext>> = Arc::new(open(&config, context)?);
        consumer.subscribe(&[topic])?;
        let (commands, received) = mpsc::channel();
        let membership = Membership {
            consumer: Arc::clone(&consumer),
            topic: topic.to_owned(),
            leaves: matches!(name, MemberName::Seat(_)),
            assigned: BTreeSet::new(),
            unreported: BTreeMap::new(),
            is_lost: false,
        };
        let thread = std::thread::Builder::new()
            .name(format!("poll-{topic}"))
            .spawn(move || membership.run_to_the_end(&received))
            .map_err(|error| KafkaError::ClientCreation(format!("cannot start the poll thread: {error}")))?;
        Ok(GroupMember { consumer, number, commands, thread: Some(thread) })
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
        // The client ends when it is dropped.
    }
}

/// A member that is dropped without leaving, because its coordinator died, still obeys the group: else the client would
/// wait for an answer when it is closed.
impl Drop for GroupMember {
    fn drop(&mut self) {
        settle(&self.consumer);
    }
}

struct Membership {
    consumer: Arc<BaseConsumer<GroupContext>>,
    topic: String,
    /// Whether the group is told when we stop.
    leaves: bool,
    assigned: BTreeSet<Partition>,
    unreported: BTreeMap<Partition, NextOffset>,
    /// Whether it was told that the client is over.
    is_lost: bool,
}

impl Membership {
    fn run_to_the_end(self, commands: &mpsc::Receiver<Command>) {
        let consumer = Arc::clone(&self.consumer);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run(commands))) {
            consumer.context().tell(GroupEvent::PollEnded(panic_text(&*panic)));
        }
        consumer.context().closing.begin();
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
                        self.leave();
                        return;
                    }
                    Ok(command) => self.obey(command),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            if last_report.elapsed() >= REPORT_INTERVAL {
                self.look_for_loss();
                self.report(CommitMode::Async);
                last_report = Instant::now();
            }
        }
    }

    /// A client that has raised a fatal error does nothing any more, and says so once, in the middle of others.
    fn look_for_loss(&mut self) {
        let Some((code, text)) = self.consumer.client().fatal_error().filter(|_| !self.is_lost) else { return };
        self.is_lost = true;
        let is_fenced = trouble(code, &text) == Trouble::Fenced;
        self.consumer.context().tell(GroupEvent::Lost(Loss { is_fenced, text }));
    }

    /// Tells the group that we stop, so that others get our partitions at once. Closing the client would not: it takes a
    /// static member for one that comes back. Unsubscribing does, as soon as the last partition is given up.
    fn leave(&mut self) {
        settle(&self.consumer);
        if !self.leaves {
            return;
        }
        self.consumer.unsubscribe();
        let deadline = Instant::now() + LEAVING;
        while Instant::now() < deadline && is_member(&self.consumer) {
            if let Some(Err(error)) = self.consumer.poll(POLL) {
                tracing::debug!(error = %error, "while leaving the group");
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Assign(positions) => {
                let list = self.list(positions.iter().map(|(partition, next)| (*partition, Offset::Offset(next.0))));
                match self.consumer.incremental_assign(&list) {
                    Ok(()) => {
                        self.consumer.context().has_answered(true);
                        self.assigned.extend(positions.iter().map(|(partition, _)| *partition));
                    }
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
        for (is_assigned, step) in [true, false].into_iter().zip(&steps) {
            if step.is_ok() {
                self.consumer.context().has_answered(is_assigned);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_longest_session_that_may_be_set_makes_a_client() {
        let mut settings = Config::defaults().kafka;
        settings.session_timeout_ms = 30 * 60 * 1000;
        let mut config = consumer_config(&settings);
        membership_config(&mut config, &settings, "orders");
        assert!(config.create::<BaseConsumer>().is_ok());
    }
}
