//! Answers the group: takes partitions over from their last owner, gives them to lanes, and lets them go.
//!
//! It alone decides what is consumed. Lanes report what they had to let go; it tries those again.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::domain::pause::PAUSED;
use crate::domain::units::{Offset, Partition};
use crate::failure::{Failure, Halt};
use crate::platforms::kafka::consumer::{Command, GroupEvent, GroupNews, Loss, MemberName};
use crate::platforms::kafka::fetch::{FetchProblem, FetchTrouble, PartitionQueue};
use crate::platforms::kafka::log::{LogReader, Watermarks};
use crate::projector::applier::Owned;
use crate::projector::context::ViewContext;
use crate::projector::lane::{LaneCommand, LaneEvent};
use crate::projector::mailbox::LaneReader;
use crate::projector::membership::Membership;
use crate::projector::supervisor::{self, Supervisor};
use crate::projector::takeover::{self, TRUNCATED, Takeover, Wanted, acquire_all, truncated};
use crate::status::{OwnedPartition, Pause, ViewState};
use crate::store::progress::Ownership;

/// How often partitions that were let go are tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is looked for what was too large to receive, a tick apart.
const SEARCHES: u32 = 12;

/// What the coordinator needs of a lane.
pub struct LaneHandle {
    /// To the lane.
    pub commands: UnboundedSender<LaneCommand>,
    /// Its reader.
    pub reader: Arc<LaneReader>,
}

/// Everything that can happen to a coordinator.
pub struct Inbox {
    /// From the group.
    pub group: UnboundedReceiver<GroupNews>,
    /// From the lanes.
    pub lanes: UnboundedReceiver<LaneEvent>,
    /// From the readers.
    pub problems: UnboundedReceiver<FetchProblem>,
}

/// What the coordinator's own chores come to.
pub struct Results {
    takeovers: UnboundedReceiver<(u64, Takeover)>,
    names: UnboundedReceiver<Result<MemberName, Halt>>,
}

/// The coordinator of one view.
pub struct Coordinator {
    /// What all parts share.
    pub context: Arc<ViewContext>,
    /// Our place in the group.
    pub membership: Membership,
    /// Lanes by number; partition p belongs to lane p mod lanes.
    pub lanes: Vec<LaneHandle>,
    /// Looks at the log.
    pub log: Arc<LogReader>,
    granted: BTreeMap<Partition, Grant>,
    wanted: Wanted,
    /// What is done beside: takeovers, checks, searches, notes. It ends with us.
    chores: Supervisor,
    /// The identity check under way: it may take as long as Kafka is away, and nothing waits for it.
    checking: Option<AbortHandle>,
    /// Where a search for what is too large to receive reports, the search under way, and how many are left.
    problems: UnboundedSender<FetchProblem>,
    searching: Option<AbortHandle>,
    searches_left: u32,
    next_generation: u64,
    takeovers: UnboundedSender<(u64, Takeover)>,
    names: UnboundedSender<Result<MemberName, Halt>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    /// Being taken over, by the takeover of that number.
    Pending(u64),
    /// A lane has it, under this generation.
    Open(u64),
    /// Let go for now; tried again at the next tick.
    Waiting,
}

impl Coordinator {
    /// A coordinator without partitions, and where its chores report.
    pub fn new(
        context: Arc<ViewContext>,
        membership: Membership,
        lanes: Vec<LaneHandle>,
        log: Arc<LogReader>,
        problems: UnboundedSender<FetchProblem>,
    ) -> (Self, Results) {
        let (takeovers, taken_over) = unbounded_channel();
        let (names, named) = unbounded_channel();
        let coordinator = Coordinator {
            chores: Supervisor::new(&context.status),
            context,
            membership,
            lanes,
            log,
            granted: BTreeMap::new(),
            wanted: Wanted::default(),
            checking: None,
            problems,
            searching: None,
            searches_left: 0,
            next_generation: 1,
            takeovers,
            names,
        };
        (coordinator, Results { takeovers: taken_over, names: named })
    }

    /// Works until `stop`, then lets everything go and leaves the group.
    pub async fn run(mut self, mut inbox: Inbox, mut results: Results, stop: CancellationToken) {
        let mut retry = tokio::time::interval(RETRY);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut identity = tokio::time::interval(Duration::from_millis(self.context.settings.identity_check_ms));
        identity.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.context.status.until_halted() => self.let_all_go().await,
                () = self.context.status.until_pause_changes() => self.on_pause(),
                Some((number, event)) = inbox.group.recv() => {
                    if self.membership.is_present(number) {
                        self.on_group(event).await;
                    }
                }
                Some((number, result)) = results.takeovers.recv() => self.on_takeover(number, result),
                Some(name) = results.names.recv() => self.on_name(name),
                Some(event) = inbox.lanes.recv() => self.on_lane(event),
                Some(problem) = inbox.problems.recv() => self.on_problem(problem).await,
                _ = retry.tick() => self.on_tick().await,
                _ = identity.tick() => self.check_identity(),
            }
        }
        crash::point("shutdown.begun");
        let all: Vec<Partition> = self.granted.keys().copied().collect();
        self.release(&all).await;
        for lane in &self.lanes {
            lane.reader.stop();
        }
        let patience = self.patience();
        drop(self.chores); // whatever they found out, nobody acts on it any more
        self.membership.end(patience).await;
    }

    /// How long is waited for what may never end: some time has to be left for the rest.
    fn patience(&self) -> Duration {
        let (session, shutdown) = (self.context.kafka.session_timeout_ms, self.context.settings.shutdown_timeout_ms);
        Duration::from_millis(session.min(shutdown) / 2)
    }

    async fn on_group(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Assigned(partitions) => {
                self.membership.is_taken();
                self.context.metrics.rebalances.with_label_values(&[self.context.source.view]).inc();
                tracing::info!(view = self.context.source.view, partitions = ?numbers(&partitions), "partitions assigned");
                self.membership.note_growth(&partitions);
                if self.is_halted() {
                    self.membership.command(Command::Assign(Vec::new()));
                } else if partitions.is_empty() {
                    self.membership.command(Command::Assign(Vec::new()));
                    self.context.status.started();
                } else {
                    self.take_over(partitions, false);
                }
            }
            GroupEvent::Revoked(partitions) => {
                self.context.metrics.rebalances.with_label_values(&[self.context.source.view]).inc();
                tracing::info!(view = self.context.source.view, partitions = ?numbers(&partitions), "partitions revoked");
                self.release(&partitions).await;
                self.membership.has_revoked(!self.granted.is_empty());
                crash::point("revoke.closed");
            }
            GroupEvent::AnswerTooLarge(error) => {
                tracing::warn!(
                    view = self.context.source.view,
                    error,
                    "an answer of the broker is too large to receive"
                );
                // The client says so once in a while only, and the records before it may not be committed yet.
                self.searches_left = SEARCHES;
                self.search_too_large();
            }
            GroupEvent::Refused(words) => self.membership.is_refused(words, !self.granted.is_empty()),
            GroupEvent::Lost(loss) => self.on_lost(&loss).await,
            GroupEvent::PollEnded(panic) => {
                self.context.status.halt(supervisor::part_ended("poll thread", Some(&panic)));
            }
            GroupEvent::Error(error) => {
                tracing::debug!(view = self.context.source.view, error, "kafka client");
            }
        }
    }

    /// The client is over for good. What it had is let go, and somebody else may have it already.
    async fn on_lost(&mut self, loss: &Loss) {
        let naming = self.membership.is_lost(loss);
        let all: Vec<Partition> = self.granted.keys().copied().collect();
        self.release(&all).await;
        let names = self.names.clone();
        self.chores.chore("name in the group", async move {
            if names.send(naming.await).is_err() {
                tracing::debug!("name after the end of the view");
            }
        });
    }

    fn on_name(&mut self, name: Result<MemberName, Halt>) {
        match name {
            Ok(name) => {
                self.membership.rename(name);
                if !self.is_halted() {
                    self.membership.join_anew("joined anew after the client was lost");
                }
            }
            Err(halt) => self.context.status.halt(halt),
        }
    }

    /// Starts to take partitions over; the group waits for its answer meanwhile, which it may. With `prove` it has to be
    /// seen that they can be read.
    fn take_over(&mut self, partitions: Vec<Partition>, prove: bool) {
        let number = self.next_generation;
        self.next_generation += 1;
        for partition in &partitions {
            self.granted.insert(*partition, Grant::Pending(number));
        }
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).extend(&partitions);
        let (context, log, results) = (Arc::clone(&self.context), Arc::clone(&self.log), self.takeovers.clone());
        let wanted = Arc::clone(&self.wanted);
        self.chores.chore("takeover", async move {
            let result = acquire_all(&context, &log, (number, &partitions, prove), &wanted).await;
            if results.send((number, result)).is_err() {
                tracing::debug!("takeover after the end of the view");
            }
        });
    }

    fn on_takeover(&mut self, number: u64, result: Takeover) {
        crash::point("assign.acquired");
        let acquired = match result {
            Ok(acquired) => acquired,
            Err(halt) => return self.context.status.halt(halt),
        };
        let mut positions = Vec::new();
        for (partition, grant) in &mut self.granted {
            if *grant == Grant::Pending(number) && acquired.iter().all(|row| row.partition != *partition) {
                *grant = Grant::Waiting;
            }
        }
        for row in acquired {
            // Revoked or given anew in the meantime: that takeover does not count any more.
            if self.granted.get(&row.partition) != Some(&Grant::Pending(number)) {
                continue;
            }
            let generation = self.next_generation;
            self.next_generation += 1;
            let number = row.partition.lane(self.lanes.len());
            let lane = &self.lanes[number];
            let topic = &self.context.source.topic;
            let wake = lane.reader.wake();
            let reading = (row.partition, generation);
            let largest = self.context.kafka.max_fetch_bytes;
            let Some(queue) = PartitionQueue::open(&self.membership.member.consumer, topic, reading, largest, wake)
            else {
                tracing::error!(partition = row.partition.0, "the client has no queue for the partition");
                self.granted.insert(row.partition, Grant::Waiting);
                continue;
            };
            let owned = Owned {
                generation,
                owner_epoch: row.owner_epoch,
                next_offset: row.next_offset,
                decisions: row.decisions,
                commits: row.commits,
            };
            let acknowledgements = self.membership.member.acknowledger();
            let open = LaneCommand::Open { partition: row.partition, owned, acknowledgements };
            if lane.commands.send(open).is_err() {
                tracing::debug!("lane has ended");
            }
            lane.reader.add(row.partition, queue);
            self.granted.insert(row.partition, Grant::Open(generation));
            self.context.status.own(
                row.partition,
                OwnedPartition {
                    next_offset: row.next_offset,
                    owner_epoch: row.owner_epoch,
                    lane: number,
                    paused: None,
                    last_commit_at: None,
                },
            );
            positions.push((row.partition, row.next_offset));
        }
        let told: Vec<(i32, i64)> = positions.iter().map(|(partition, next)| (partition.0, next.0)).collect();
        // Every few seconds none, as long as the view is paused: nothing to tell anybody.
        if !told.is_empty() {
            tracing::info!(view = self.context.source.view, positions = ?told, "partitions taken over");
        }
        self.membership.command(Command::Assign(positions.clone()));
        self.membership.command(Command::Acknowledge(positions));
        self.context.status.started();
    }

    /// Lets partitions go: no lane works on them any more, or it is left to the fence after half a session.
    async fn release(&mut self, partitions: &[Partition]) {
        let mut closing = Vec::new();
        for partition in partitions {
            self.granted.remove(partition);
            self.wanted.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
            self.context.status.disown(*partition);
            closing.push(self.close(*partition));
        }
        let all = futures_util::future::join_all(closing);
        if tokio::time::timeout(self.patience(), all).await.is_err() {
            tracing::warn!(view = self.context.source.view, "a batch is still under way; its fence decides");
        }
        self.membership.command(Command::Unassign(partitions.to_vec()));
    }

    fn close(&self, partition: Partition) -> oneshot::Receiver<()> {
        let lane = &self.lanes[partition.lane(self.lanes.len())];
        lane.reader.remove(partition);
        let (done, closed) = oneshot::channel();
        if lane.commands.send(LaneCommand::Close(partition, done)).is_err() {
            tracing::debug!("lane has ended");
        }
        closed
    }

    fn on_lane(&mut self, event: LaneEvent) {
        match event {
            LaneEvent::Halted(halt) => self.context.status.halt(halt),
            LaneEvent::LetGo { partition, generation, pause } => {
                if self.granted.get(&partition) != Some(&Grant::Open(generation)) {
                    return;
                }
                self.pause(partition, pause);
            }
        }
    }

    fn search_too_large(&mut self) {
        if self.searches_left == 0 || self.searching.as_ref().is_some_and(|search| !search.is_finished()) {
            return;
        }
        self.searches_left -= 1;
        let open = self.context.status.snapshot().partitions;
        let open = open.iter().filter(|(partition, _)| matches!(self.granted.get(partition), Some(Grant::Open(_))));
        let positions = open.map(|(partition, owned)| (*partition, owned.next_offset)).collect();
        let search = takeover::find_too_large(Arc::clone(&self.context), positions, self.problems.clone());
        self.searching = Some(self.chores.chore("search for what is too large", search));
    }

    fn on_too_large(&mut self, partition: Partition, offset: Offset, text: &str) {
        let is_open = matches!(self.granted.get(&partition), Some(Grant::Open(_)));
        let owned = self.context.status.snapshot().partitions.remove(&partition);
        if is_open && owned.is_some_and(|owned| owned.next_offset.first_ahead() == offset) {
            self.pause(partition, Pause::too_large(partition, offset, text));
        }
    }

    /// Lets a partition go for now.
    fn pause(&mut self, partition: Partition, pause: Pause) {
        self.granted.insert(partition, Grant::Waiting);
        drop(self.close(partition));
        self.membership.command(Command::Unassign(vec![partition]));
        let Some(owned) = self.context.status.snapshot().partitions.remove(&partition) else { return };
        if let Some(offset) = pause.unreadable_at {
            let (context, why) = (Arc::clone(&self.context), pause.clone());
            let owner = Ownership { partition, epoch: owned.owner_epoch };
            self.chores.chore("note of an unreadable batch", async move {
                match takeover::at_unreadable(&context, owner, offset, &why).await {
                    Ok(()) => {}
                    Err(Failure::Halt(halt)) => context.status.halt(halt),
                    Err(failure) => {
                        tracing::debug!(view = context.source.view, ?failure, "said again when it is tried again");
                    }
                }
            });
        }
        // Tried every few seconds, told once; of the whole view elsewhere.
        if owned.paused.as_ref() != Some(&pause) && pause.code != PAUSED {
            let (view, offset) = (self.context.source.view, owned.next_offset);
            tracing::warn!(
                view,
                partition = partition.0,
                offset = offset.0,
                code = pause.code,
                reason = pause.detail,
                "partition is paused"
            );
        }
        self.context.status.update_partition(partition, |owned| owned.paused = Some(pause));
    }

    async fn on_problem(&mut self, problem: FetchProblem) {
        let FetchProblem { partition, trouble, text } = problem;
        match trouble {
            FetchTrouble::TooLarge(offset) => self.on_too_large(partition, offset, &text),
            FetchTrouble::OutOfRange => self.on_out_of_range(partition, &text).await,
            FetchTrouble::Forbidden => self.on_forbidden(partition, &text),
            FetchTrouble::Passing => tracing::warn!(
                view = self.context.source.view,
                partition = partition.0,
                error = text,
                "fetch failed, the client tries again"
            ),
        }
    }

    /// We may not read the partition, and the client says so once only: it is taken over anew, and waited until it can be
    /// read.
    fn on_forbidden(&mut self, partition: Partition, text: &str) {
        if !matches!(self.granted.get(&partition), Some(Grant::Open(_))) {
            return;
        }
        tracing::warn!(
            view = self.context.source.view,
            partition = partition.0,
            error = text,
            "partition is forbidden"
        );
        drop(self.close(partition));
        self.membership.command(Command::Unassign(vec![partition]));
        self.take_over(vec![partition], true);
    }

    async fn on_out_of_range(&mut self, partition: Partition, text: &str) {
        let detail = match self.watermarks_of(partition).await {
            Some(Watermarks { low, high }) => {
                format!("partition {partition} now holds offsets {low} to {high}; our position is outside: {text}")
            }
            None => format!("partition {partition}: our position is not in the log: {text}"),
        };
        let failure = truncated(&detail);
        let owned = self.context.status.snapshot().partitions.remove(&partition);
        let owner = owned.map(|owned| Ownership { partition, epoch: owned.owner_epoch });
        if let Some(owner) = owner
            && let Err(error) = takeover::note_truncated(&self.context, owner, &failure).await
        {
            tracing::debug!(view = self.context.source.view, ?error, "the hole is found again after a restart");
        }
        // A re-created topic is out of range, too: the more precise name goes first.
        let failure =
            self.context.guard.confirm().await.err().filter(|f| matches!(f, Failure::Halt(_))).unwrap_or(failure);
        if let Failure::Halt(halt) = failure {
            self.context.status.halt(halt);
        }
    }

    async fn watermarks_of(&self, partition: Partition) -> Option<Watermarks> {
        let log = Arc::clone(&self.log);
        supervisor::blocking(move || log.watermarks(partition)).await.ok()
    }

    async fn on_tick(&mut self) {
        if self.is_halted() {
            return self.come_back_after_skip_to().await;
        }
        self.membership.look();
        self.search_too_large();
        self.take_waiting_over();
    }

    fn take_waiting_over(&mut self) {
        let waiting: Vec<Partition> = self
            .granted
            .iter()
            .filter(|(_, grant)| **grant == Grant::Waiting)
            .map(|(partition, _)| *partition)
            .collect();
        if !waiting.is_empty() {
            self.take_over(waiting, false);
        }
    }

    /// An operator has paused the view, or has it go on. We stay in the group, so that nothing is shared out anew and going on
    /// takes a moment; the partitions are let go, as they are at a bound.
    fn on_pause(&mut self) {
        if self.is_halted() {
            return;
        }
        let Some(pause) = self.context.status.paused() else { return self.take_waiting_over() };
        let open = self.granted.iter().filter(|(_, grant)| matches!(grant, Grant::Open(_)));
        let open: Vec<Partition> = open.map(|(partition, _)| *partition).collect();
        for partition in open {
            self.pause(partition, Pause::of_view(&pause));
        }
        // What met the fence before we heard of it.
        let lost = self.context.status.snapshot().partitions.into_iter();
        for (partition, _) in lost.filter(|(_, owned)| owned.paused == Some(Pause::not_owner())) {
            self.context.status.update_partition(partition, |owned| owned.paused = Some(Pause::of_view(&pause)));
        }
    }

    fn check_identity(&mut self) {
        if self.is_halted() || self.checking.as_ref().is_some_and(|check| !check.is_finished()) {
            return;
        }
        let context = Arc::clone(&self.context);
        self.checking = Some(self.chores.chore("identity check", async move {
            crash::point("part.identity");
            // That Kafka is away is said by those who need it.
            if let Err(Failure::Halt(halt)) = context.guard.confirm().await {
                context.status.halt(halt);
            }
        }));
    }

    /// A view that halted before a hole works again once an operator has skipped the hole.
    async fn come_back_after_skip_to(&mut self) {
        let code = match self.context.status.snapshot().state {
            ViewState::Halted(halt) => halt.code,
            _ => return,
        };
        if code == TRUNCATED
            && takeover::is_truncation_over(&self.context).await == Ok(true)
            && self.context.status.end_halt(TRUNCATED)
        {
            self.membership.join_anew("an operator has skipped what is lost, joined anew");
        }
    }

    fn is_halted(&self) -> bool {
        self.context.status.is_halted()
    }

    /// Stops consuming for good: the view has halted. The membership stays, so that the group does not hand our
    /// partitions to somebody who would halt as well.
    async fn let_all_go(&mut self) {
        let open: Vec<Partition> = self.granted.keys().copied().collect();
        self.release(&open).await;
    }
}

/// For the log.
fn numbers(partitions: &[Partition]) -> Vec<i32> {
    partitions.iter().map(|partition| partition.0).collect()
}
