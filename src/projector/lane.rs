//! A lane: applies the records of its partitions, one transaction after the other, on its own connection.
//!
//! Here live ownership, retries and what to do about each failure; what a batch means is in [`super::fold`], how it
//! is written in [`super::commit`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::domain::poison::{Poison, Reason};
use crate::domain::record::RecordBatch;
use crate::failure::{Backoff, Failure};
use crate::memory;
use crate::platforms::kafka::consumer::Command;
use crate::projector::attempt::no_session;
use crate::projector::bulk::load_failed;
use crate::projector::cache::KeyCache;
use crate::projector::commit::Session;
use crate::projector::context::ViewContext;
use crate::projector::decode::Overrules;
use crate::projector::mailbox::Mailbox;
use crate::projector::plan::Counters;
use crate::projector::state::{Halt, Pause, ViewState};
use crate::store::progress::{self, Advance};
use crate::views::View;

/// A partition that a lane owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// The assignment: records of another generation are not ours.
    pub generation: u64,
    /// Our fencing number.
    pub owner_epoch: i64,
    /// First offset not applied yet.
    pub next_offset: i64,
    /// How often something had been decided when our keys were loaded.
    pub decisions: i64,
    /// The number of the partition's last commit. Only its owner raises it, so the next one is known beforehand.
    pub commits: i64,
}

impl Owned {
    /// Where the partition stands, as a move of nothing.
    pub fn stand(&self, partition: i32) -> Advance {
        Advance {
            partition,
            expected_offset: self.next_offset,
            owner_epoch: self.owner_epoch,
            next_offset: self.next_offset,
            anchor: None,
            counters: Counters::default(),
            decisions: self.decisions,
            commit: self.commits + 1,
        }
    }
}

/// Keys with their partitions, and who waits for their healing.
pub type Healing = (Vec<(String, i32)>, oneshot::Sender<()>);

/// What a lane has to do beside applying records.
#[derive(Debug)]
pub enum LaneCommand {
    /// Apply records of this partition from now on.
    Open {
        /// Partition.
        partition: i32,
        /// The assignment.
        owned: Owned,
        /// Where its progress is reported.
        acknowledgements: mpsc::Sender<Command>,
    },
    /// Let go of this partition; answered when no transaction of it is under way any more.
    Close(i32, oneshot::Sender<()>),
    /// Look whether these keys (of these partitions) can be drained; dropped or answered when that is over.
    Heal(Healing),
}

/// What a lane reports.
#[derive(Debug)]
pub enum LaneEvent {
    /// The partition was let go: a bound or an unreadable batch was reached, or its fence was lost. Try again later.
    LetGo {
        /// Partition.
        partition: i32,
        /// Its assignment.
        generation: u64,
        /// Why.
        pause: Pause,
    },
    /// Going on would be wrong.
    Halted(Halt),
}

/// A batch on its way: which part is to be tried, and what Postgres has said of it so far.
pub struct Job<'a> {
    /// The records.
    pub batch: &'a RecordBatch,
    /// First record not done.
    pub start: usize,
    /// One past the last record of the next attempt.
    pub end: usize,
    /// Keys to drain, without records.
    pub heal: Vec<(String, i32)>,
    /// Most parked events drained per key and attempt.
    pub drain_limit: usize,
    /// What overrules the decisions.
    pub overrules: Overrules,
}

/// Parked events drained per key in one transaction.
const DRAIN_LIMIT: usize = 2_000;

fn unstorable(detail: &str) -> Poison {
    Poison::new(Reason::Unrepresentable, format!("Postgres cannot hold it: {detail}"))
}

/// A batch of so many records leaves memory behind that small ones do not use up.
const LARGE: usize = 10_000;
/// How long after the last large batch that memory is given back.
const QUIET: Duration = Duration::from_secs(1);

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// One lane of a view.
pub struct Lane<V: View> {
    /// The view.
    pub view: Arc<V>,
    /// What all parts share.
    pub context: Arc<ViewContext>,
    /// Partitions owned.
    pub owned: BTreeMap<i32, Owned>,
    /// Hot keys.
    pub cache: KeyCache<V::State>,
    /// The connection; none after a failure.
    pub session: Option<Session<V>>,
    commands: UnboundedReceiver<LaneCommand>,
    events: UnboundedSender<LaneEvent>,
    acknowledgements: Option<mpsc::Sender<Command>>,
    /// Partitions that a bulk load was ever given.
    pub opened: BTreeSet<i32>,
    /// Bytes of its keys as it last told them.
    pub told_bytes: usize,
    /// The last attempt failed for want of a schema.
    waits_for_registry: bool,
}

impl<V: View> Lane<V> {
    /// A lane without partitions.
    pub fn new(
        view: Arc<V>,
        context: Arc<ViewContext>,
        commands: UnboundedReceiver<LaneCommand>,
        events: UnboundedSender<LaneEvent>,
    ) -> Self {
        let cache_bytes = match context.bulk {
            Some(_) => usize::MAX,
            None => context.settings.cache_bytes / context.settings.lanes.max(1),
        };
        Lane {
            view,
            context,
            owned: BTreeMap::new(),
            cache: KeyCache::new(cache_bytes, V::state_bytes),
            session: None,
            commands,
            events,
            acknowledgements: None,
            opened: BTreeSet::new(),
            told_bytes: 0,
            waits_for_registry: false,
        }
    }

    /// Applies what arrives until `stop`; a batch under way is finished or abandoned.
    pub async fn run(mut self, mailbox: Arc<Mailbox>, stop: CancellationToken) {
        let interval = Duration::from_millis(self.context.settings.min_commit_interval_ms);
        let (mut not_before, mut give_back_at) = (Instant::now(), None);
        let context = Arc::clone(&self.context);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(command) = self.commands.recv() => {
                    if let Some((heal, done)) = self.obey(command) {
                        self.heal(heal, &stop).await;
                        drop(done);
                    }
                }
                () = Self::all_read(context.bulk.as_ref()) => return self.write_keys().await,
                () = at(give_back_at) => {
                    give_back_at = None;
                    // Milliseconds, and nobody waits for it.
                    drop(tokio::task::spawn_blocking(memory::give_back));
                }
                batch = mailbox.take(not_before) => {
                    not_before = Instant::now() + interval;
                    if batch.len() >= LARGE {
                        give_back_at = Some(Instant::now() + QUIET);
                    }
                    crash::point("batch.taken");
                    // Stopped only after the coordinator's patience is over: then the transaction is abandoned with
                    // its connection.
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = self.apply(&batch, &stop) => {}
                    }
                }
            }
        }
    }

    /// Obeys a command; keys to heal are given back, they need a transaction.
    fn obey(&mut self, command: LaneCommand) -> Option<Healing> {
        match command {
            LaneCommand::Open { partition, owned, .. } if self.is_bulk() => self.open_once(partition, owned),
            LaneCommand::Open { partition, owned, acknowledgements } => {
                self.owned.insert(partition, owned);
                self.session.iter_mut().for_each(Session::forget_decisions);
                self.acknowledgements = Some(acknowledgements);
            }
            LaneCommand::Close(partition, done) => {
                self.owned.remove(&partition);
                if done.send(()).is_err() {
                    tracing::debug!(partition, "nobody waited for the partition to close");
                }
            }
            LaneCommand::Heal(healing) => return Some(healing),
        }
        None
    }

    async fn apply(&mut self, batch: &RecordBatch, stop: &CancellationToken) {
        let mut job = Job {
            batch,
            start: 0,
            end: batch.len(),
            heal: Vec::new(),
            drain_limit: DRAIN_LIMIT,
            overrules: Overrules::default(),
        };
        self.work_off(&mut job, stop).await;
        for broken in batch.unreadable() {
            if self.owned.get(&broken.partition).is_some_and(|owned| owned.generation == broken.generation) {
                self.let_go(broken.partition, Pause::unreadable(broken.partition, broken.offset, &broken.text));
            }
        }
    }

    async fn heal(&mut self, keys: Vec<(String, i32)>, stop: &CancellationToken) {
        let batch = RecordBatch::default();
        let mut job = Job {
            batch: &batch,
            start: 0,
            end: 0,
            heal: keys,
            drain_limit: DRAIN_LIMIT,
            overrules: Overrules::default(),
        };
        self.work_off(&mut job, stop).await;
    }

    /// Tries until every record of the job is committed, or its partitions are not ours any more.
    async fn work_off(&mut self, job: &mut Job<'_>, stop: &CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            if self.owned.is_empty() || stop.is_cancelled() {
                self.leave_registry(); // whatever it waited for is no longer ours
                return;
            }
            match self.attempt(job).await {
                Ok(done) => {
                    backoff = Backoff::default();
                    self.leave_registry();
                    for (partition, offset, reason) in done.blocked {
                        self.let_go(partition, Pause::park_bound(&reason, offset));
                    }
                    job.start = job.end;
                    job.end = job.batch.len();
                    job.heal = done.unfinished;
                    job.drain_limit = DRAIN_LIMIT;
                    if job.start == job.end && job.heal.is_empty() {
                        self.context.resume_from(&ViewState::WaitingForDatabase);
                        self.context.resume_from(&ViewState::WaitingForKafka);
                        return;
                    }
                }
                Err(failure)
                    if self.is_bulk() && !matches!(failure, Failure::FirstOnly(_) | Failure::RegistryAway(_)) =>
                {
                    return self.halt(load_failed(format!("{failure:?}")));
                }
                Err(failure) => {
                    if !self.recover(failure, job, &mut backoff, stop).await {
                        return;
                    }
                }
            }
        }
    }

    /// Prepares the next attempt after a failure; `false` ends the job.
    async fn recover(
        &mut self,
        failure: Failure,
        job: &mut Job<'_>,
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> bool {
        match failure {
            Failure::Retry(reason) => {
                self.context.wait_for(ViewState::WaitingForDatabase, &reason);
                self.wait(backoff.next_wait(), stop).await;
                true
            }
            Failure::KafkaAway(reason) => {
                self.context.wait_for(ViewState::WaitingForKafka, &reason);
                self.wait(backoff.next_wait(), stop).await;
                true
            }
            Failure::RegistryAway(reason) => {
                self.waits_for_registry = true;
                self.context.wait_for(ViewState::WaitingForRegistry, &reason);
                self.wait(backoff.next_wait(), stop).await;
                true
            }
            Failure::FirstOnly(records) => {
                job.end = job.start + records;
                true
            }
            Failure::TooMuch(reason) => {
                self.context.wait_for(ViewState::WaitingForDatabase, &reason);
                job.end = job.start + (job.end - job.start).div_ceil(2);
                job.drain_limit = job.drain_limit.div_ceil(2);
                self.wait(backoff.next_wait(), stop).await;
                true
            }
            Failure::Stale => {
                self.cache.clear();
                // Two lanes on one key take turns; a constraint that is violated for ever is our bug.
                if backoff.failures() > 20 {
                    self.halt(Halt {
                        code: "internal_error",
                        detail: "stored rows do not match what was loaded a moment before, again and again".into(),
                        next_step: "this is a bug: report it with the log, then restart",
                    });
                    return false;
                }
                self.wait(backoff.next_wait(), stop).await;
                true
            }
            Failure::Decided(numbers) => {
                self.cache.clear();
                self.session.iter_mut().for_each(Session::forget_decisions);
                for (partition, decisions) in numbers {
                    self.owned.entry(partition).and_modify(|owned| owned.decisions = decisions);
                }
                true
            }
            Failure::Fenced(partitions) => {
                self.context.metrics.fenced.with_label_values(&[V::NAME]).inc();
                for partition in partitions {
                    self.let_go(partition, Pause::not_owner());
                }
                true
            }
            Failure::Record(detail) => self.narrow_or_wait(job, &detail, backoff, stop).await,
            Failure::ReusedEventId { detail, event_ids } => match self.find_owners(&event_ids, job).await {
                Ok(true) => true,
                Ok(false) => self.narrow_or_wait(job, &detail, backoff, stop).await,
                Err(failure) => Box::pin(self.recover(failure, job, backoff, stop)).await,
            },
            Failure::Halt(halt) => {
                self.halt(halt);
                false
            }
        }
    }

    /// Another lane that has its schemas must not say that all is well: only who has waited does.
    fn leave_registry(&mut self) {
        if std::mem::take(&mut self.waits_for_registry) {
            self.context.resume_from(&ViewState::WaitingForRegistry);
        }
    }

    async fn narrow_or_wait(
        &mut self,
        job: &mut Job<'_>,
        detail: &str,
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> bool {
        match self.narrow(job, detail).await {
            Ok(()) => true,
            Err(failure) => Box::pin(self.recover(failure, job, backoff, stop)).await,
        }
    }

    /// Some event of the attempt cannot be stored: halves the attempt until it is alone, then refuses it.
    async fn narrow(&mut self, job: &mut Job<'_>, detail: &str) -> Result<(), Failure> {
        let records = job.end - job.start;
        if records > 1 {
            job.end = job.start + records / 2;
        } else if job.drain_limit > 1 {
            // Not the record itself but something that it drains, perhaps: drain less, then one by one.
            job.drain_limit = if records == 1 { 0 } else { job.drain_limit / 2 };
        } else if records == 1 {
            if let Some((_, record)) = job.batch.iter().nth(job.start) {
                job.overrules.refused.insert((record.partition, record.offset), unstorable(detail));
                job.drain_limit = DRAIN_LIMIT;
            }
        } else if job.heal.len() > 1 {
            // Several keys heal at once: the sweep brings the others back.
            job.heal.truncate(job.heal.len() / 2);
        } else if let Some((key, _)) = job.heal.first() {
            // One key: what was decided for it, or the lowest parked event, whose turn it is then.
            self.ensure_session().await?;
            let session = self.session.as_ref().ok_or_else(no_session)?;
            let decided = session.next_substitute(&self.context, key).await?;
            let decided =
                decided.filter(|origin| !job.overrules.refused.contains_key(&(origin.partition, origin.offset)));
            let bad = match decided {
                Some(_) if job.drain_limit > 0 => {
                    job.drain_limit = 0;
                    return Ok(());
                }
                Some(origin) => Some(origin),
                None => session.lowest_parked(&self.context, key).await?,
            };
            if let Some(origin) = bad {
                job.overrules.refused.insert((origin.partition, origin.offset), unstorable(detail));
            }
            job.drain_limit = DRAIN_LIMIT;
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
                    // Keys to heal come again with the next sweep.
                    drop(self.obey(command));
                    if self.owned.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    fn let_go(&mut self, partition: i32, pause: Pause) {
        if self.is_bulk() {
            return self.halt(load_failed(format!("partition {partition}: {}", pause.detail)));
        }
        if let Some(owned) = self.owned.remove(&partition) {
            self.tell(LaneEvent::LetGo { partition, generation: owned.generation, pause });
        }
    }

    /// Ends all work of this lane, and tells why.
    pub fn halt(&mut self, halt: Halt) {
        self.owned.clear();
        self.tell(LaneEvent::Halted(halt));
    }

    fn tell(&self, event: LaneEvent) {
        if self.events.send(event).is_err() {
            tracing::debug!("lane event after the end of the view");
        }
    }

    /// Reports committed progress to the group.
    pub fn acknowledge(&self, positions: Vec<(i32, i64)>) {
        crash::point("acknowledge.before");
        let Some(group) = &self.acknowledgements else { return };
        if group.send(Command::Acknowledge(positions)).is_err() {
            tracing::debug!("acknowledgement after the end of the consumer");
        }
        crash::point("acknowledge.done");
    }

    /// The session, opened if need be. After a new connection nothing in memory is believed: progress is read again,
    /// which also tells how a commit ended whose answer was lost.
    pub async fn ensure_session(&mut self) -> Result<(), Failure> {
        if self.session.as_ref().is_some_and(Session::is_usable) {
            return Ok(());
        }
        if self.is_bulk() && self.session.is_some() {
            return Err(Failure::Retry("the connection to Postgres was lost".to_owned()));
        }
        self.session = None;
        self.cache.clear();
        let session = Session::open(&self.context).await?;
        let partitions: Vec<i32> = self.owned.keys().copied().collect();
        let stored = progress::read(&session.client, &self.context.source, &partitions)
            .await
            .map_err(|error| crate::store::sqlstate::classify(error, None))?;
        self.session = Some(session);
        let mut fenced: Vec<i32> = Vec::new();
        for partition in partitions {
            let Some(owned) = self.owned.get_mut(&partition) else { continue };
            match stored.iter().find(|row| row.partition == partition) {
                Some(row) if row.owner_epoch == owned.owner_epoch => {
                    owned.next_offset = row.next_offset;
                    owned.decisions = row.decisions;
                    owned.commits = row.commits;
                }
                _ => fenced.push(partition),
            }
        }
        if fenced.is_empty() { Ok(()) } else { Err(Failure::Fenced(fenced)) }
    }
}
