//! Loads what a batch needs and writes it in one transaction: fence, view rows, ledger, parked events, dead letters.
//! The only place that writes view rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::task::Poll;

use futures_util::future::{join, join3, join4, join5};

use crate::config::History;
use crate::crash;
use crate::failure::Failure;
use crate::projector::context::ViewContext;
use crate::projector::decisions::Verdict;
use crate::projector::decode::Decoded;
use crate::projector::event_ids::EventIds;
use crate::projector::plan::{ByKey, KeyEntry, Plan, Work};
use crate::store::control::{self, ControlStatements, DecisionsByKey, HeldRow, ParkedByKey};
use crate::store::ledger::{Commit, LedgerWriter};
use crate::store::progress::{Advance, AdvanceColumns};
use crate::store::sqlstate::classify;
use crate::store::{Connection, pool};
use crate::views::{ChangedKey, LedgerRow, Origin, View, WriteSet, Written};

/// A writer connection with its prepared statements.
pub struct Session<V: View> {
    /// The connection.
    pub client: Connection,
    /// The view's statements.
    pub statements: V::Statements,
    control: ControlStatements,
    ledger: LedgerWriter,
    /// Whether there are decisions about events, as far as it was asked.
    has_decisions: Option<bool>,
    /// A transaction may be open or its outcome unknown.
    broken: bool,
}

impl<V: View> Session<V> {
    /// Connects and prepares.
    pub async fn open(context: &ViewContext) -> Result<Self, Failure> {
        let search_path = context.source.id().search_path();
        let fail = |error| classify(error, V::EVENT_ID_CONSTRAINT);
        let client = pool::connect_writer(&context.database, &search_path).await.map_err(fail)?;
        let statements = V::prepare(&client).await.map_err(fail)?;
        let control = ControlStatements::prepare(&client).await.map_err(fail)?;
        let ledger = LedgerWriter::prepare(&client).await.map_err(fail)?;
        Ok(Session { client, statements, control, ledger, has_decisions: None, broken: false })
    }

    /// Asks again, before the next load, whether there are decisions.
    pub fn forget_decisions(&mut self) {
        self.has_decisions = None;
    }

    /// Learns whether there are decisions to load with keys: nearly always there are none.
    pub async fn look_for_decisions(&mut self, view: &str) -> Result<(), Failure> {
        if self.has_decisions.is_none() {
            let any = control::any_decisions(&self.client, view).await.map_err(|error| classify(error, None))?;
            self.has_decisions = Some(any);
        }
        Ok(())
    }

    /// Where the record was read that an operator put next in `key`, behind what was skipped.
    pub async fn next_substitute(&self, context: &ViewContext, key: &str) -> Result<Option<Origin>, Failure> {
        let fail = |error| classify(error, None);
        let decisions = self.control.load_decisions(&self.client, &context.source, &[key]).await.map_err(fail)?;
        let stored = V::load(&self.statements, &self.client, &[key]).await.map_err(fail)?;
        let mut last = stored.first().map_or(context.settings.first_sequence - 1, |loaded| loaded.last_sequence);
        for decision in decisions.get(key).into_iter().flatten() {
            match &decision.verdict {
                _ if decision.sequence_to <= last => {}
                _ if !decision.covers(last + 1) => break,
                Verdict::Skip => last = decision.sequence_to,
                Verdict::Take(substitute) => return Ok(Some(substitute.origin)),
            }
        }
        Ok(None)
    }

    /// Whether the connection can take another transaction.
    pub fn is_usable(&self) -> bool {
        !self.broken && !self.client.is_closed()
    }

    /// Commits the plan and the advances, or changes nothing.
    pub async fn commit(
        &mut self,
        context: &ViewContext,
        plan: &Plan<'_, V>,
        advances: &[Advance],
    ) -> Result<(), Failure> {
        // Asked after the batch was read, in parallel with the writes: nothing of a re-created topic is committed.
        let (written, confirmed) = join(self.write(context, plan, advances), context.guard.confirm()).await;
        crash::point("commit.written");
        if let Err(failure) = written.and(confirmed) {
            self.roll_back().await;
            return Err(failure);
        }
        crash::point("commit.identity_confirmed");
        // From here on the outcome is unknown until the answer is there.
        self.broken = true;
        let mut commit = Box::pin(self.client.batch_execute("commit"));
        // Polled once, COMMIT is on its way.
        let sent = std::future::poll_fn(|context| Poll::Ready(commit.as_mut().poll(context))).await;
        crash::point("commit.sent");
        let answer = match sent {
            Poll::Ready(answer) => answer,
            Poll::Pending => commit.await,
        };
        answer.map_err(|error| classify(error, V::EVENT_ID_CONSTRAINT))?;
        self.broken = false;
        Ok(())
    }

    /// Writes the keys that a bulk load has kept in memory, if the partitions are still ours.
    pub async fn write_keys(
        &mut self,
        context: &ViewContext,
        changed: Vec<ChangedKey<'_, V::State>>,
        advances: &[Advance],
    ) -> Result<(), Failure> {
        let fail = |error| classify(error, None);
        let set: WriteSet<'_, '_, V> = WriteSet { changed, details: &[] };
        // As many rows as there are, in one transaction: no time is too long for it.
        self.client.batch_execute("begin; set local statement_timeout = 0").await.map_err(fail)?;
        let columns = AdvanceColumns::of(advances);
        let moved = columns.run(&self.client, &self.control.advance, &context.source).await.map_err(fail)?;
        if moved.len() != advances.len() {
            return Err(Failure::Fenced(advances.iter().map(|advance| advance.partition).collect()));
        }
        V::write(&self.statements, &self.client, &set).await.map_err(fail)?;
        self.client.batch_execute("commit").await.map_err(fail)
    }

    /// Where the lowest parked event of `key` was read.
    pub async fn lowest_parked(&self, context: &ViewContext, key: &str) -> Result<Option<Origin>, Failure> {
        let rows = self.control.load_parked(&self.client, &context.source, &[key], 1).await;
        let rows = rows.map_err(|error| classify(error, None))?;
        Ok(rows.get(key).and_then(|rows| rows.first()).map(|row| row.origin))
    }

    async fn roll_back(&mut self) {
        self.broken = self.client.is_closed() || self.client.batch_execute("rollback").await.is_err();
    }

    /// Sends everything of the transaction but its end, in one go, and counts what came back.
    async fn write(&self, context: &ViewContext, plan: &Plan<'_, V>, advances: &[Advance]) -> Result<(), Failure> {
        let fail = |error| classify(error, V::EVENT_ID_CONSTRAINT);
        let columns = AdvanceColumns::of(advances);
        let keys = plan.in_order();
        let ledger = if context.settings.history == History::Off { &[] } else { plan.ledger.as_slice() };
        let commits = commits_of(plan, ledger, advances)?;
        let mut set = write_set(plan, &keys);
        if context.bulk.is_some() {
            set.changed.clear(); // written when all is read
        }
        let begin = self.client.batch_execute("begin");
        let fence = columns.run(&self.client, &self.control.advance, &context.source);
        let rows = V::write(&self.statements, &self.client, &set);
        let ledger = self.ledger.write(&self.client, ledger, &commits);
        let control = self.write_control(context, plan, &keys);
        let (begun, (moved, rows, ledger, control)) = join(begin, join4(fence, rows, ledger, control)).await;
        crash::point("commit.begun");
        begun.map_err(fail)?;
        let moved: HashMap<i32, i64> = moved.map_err(fail)?.into_iter().collect();
        let partitions = advances.iter().map(|advance| advance.partition);
        let fenced: Vec<i32> = partitions.filter(|partition| !moved.contains_key(partition)).collect();
        if !fenced.is_empty() {
            return Err(Failure::Fenced(fenced));
        }
        // Whoever decides holds the lock of these rows: what is decided later finds our rows as we leave them.
        if advances.iter().any(|advance| moved.get(&advance.partition) != Some(&advance.decisions)) {
            return Err(Failure::Decided(moved.into_iter().collect()));
        }
        crash::point("commit.fenced");
        // In the order in which they were sent: what follows a failure fails, too.
        let rows = rows.map_err(fail)?;
        ledger.map_err(fail)?;
        control?;
        if rows == Written::Stale { Err(Failure::Stale) } else { Ok(()) }
    }

    async fn write_control(
        &self,
        context: &ViewContext,
        plan: &Plan<'_, V>,
        keys: &[InWork<'_, '_, V>],
    ) -> Result<(), Failure> {
        let fail = |error| classify(error, None);
        let (client, source) = (&self.client, &context.source);
        let parked = plan.new_parked();
        let (put, released) = held_rows(keys);
        // Nearly always all of them are empty: then nothing is sent.
        let settled = unless(plan.settled.is_empty(), self.control.settle_decisions(client, source, &plan.settled));
        let results = join5(
            unless(plan.dead_letters.is_empty(), self.control.insert_dead_letters(client, source, &plan.dead_letters)),
            unless(parked.is_empty(), self.control.insert_parked(client, source, &parked)),
            unless(plan.drained.is_empty(), self.control.delete_parked(client, source, &plan.drained)),
            unless(put.is_empty(), self.control.put_held(client, source, &put)),
            unless(released.is_empty(), self.control.delete_held(client, source, &released)),
        );
        let (results, settled) = join(results, settled).await;
        for result in [results.0, results.1, results.3, results.4, settled] {
            result.map_err(fail)?;
        }
        let drained = results.2.map_err(fail)?;
        // Somebody else drained the same events: our state of the key is old.
        if drained == plan.drained.len() as u64 { Ok(()) } else { Err(Failure::Stale) }
    }
}

async fn unless<E>(skip: bool, work: impl Future<Output = Result<u64, E>>) -> Result<u64, E> {
    if skip { Ok(0) } else { work.await }
}

type InWork<'p, 'a, V> = (&'a str, &'p Work<'a, <V as View>::State>);

fn write_set<'p, 'a, V: View>(plan: &'p Plan<'a, V>, keys: &[InWork<'p, 'a, V>]) -> WriteSet<'p, 'a, V> {
    let changed = keys
        .iter()
        .filter(|(_, work)| work.changed)
        .map(|(key, work)| ChangedKey {
            key,
            base_sequence: work.base_sequence,
            last_sequence: work.entry.last_sequence,
            last_event_id: work.entry.last_event_id.as_deref().unwrap_or_default(),
            state: &work.entry.state,
        })
        .collect();
    WriteSet { changed, details: &plan.details }
}

/// The commit of each ledger row: that of the partition in whose turn its key is, so that all rows of a key in one
/// transaction have the same.
fn commits_of<V: View>(
    plan: &Plan<'_, V>,
    ledger: &[LedgerRow<'_>],
    advances: &[Advance],
) -> Result<Vec<Commit>, Failure> {
    let numbers: BTreeMap<i32, i64> = advances.iter().map(|advance| (advance.partition, advance.commit)).collect();
    ledger
        .iter()
        .map(|row| {
            let partition = plan.keys.get(row.key).and_then(|work| work.partition);
            let commit = partition.and_then(|partition| Some(Commit { partition, number: *numbers.get(&partition)? }));
            commit.ok_or_else(|| {
                let detail = format!("`{}` has consumed {} in nobody's turn", row.key, row.sequence);
                Failure::halt("internal_error", detail, "this is a bug: report it with the log, then restart")
            })
        })
        .collect()
}

fn held_rows<'p, S>(keys: &[(&'p str, &'p Work<'_, S>)]) -> (Vec<HeldRow<'p>>, Vec<&'p str>) {
    let (mut put, mut released) = (Vec::new(), Vec::new());
    for (key, work) in keys {
        match (&work.entry.held, work.partition) {
            (Some(held), Some(partition)) if work.held_changed => {
                put.push(HeldRow { key, missing_from: work.entry.last_sequence + 1, held, partition });
            }
            (None, _) if work.was_held => released.push(*key),
            _ => {}
        }
    }
    (put, released)
}

/// What a load works with.
pub struct Loading<'c, V: View> {
    /// The view's context.
    pub context: &'c ViewContext,
    /// The connection.
    pub session: &'c Session<V>,
}

/// Loads the entries of `missing` keys; keys that are not stored get an empty entry.
pub async fn reload<'a, V: View>(
    loading: &Loading<'_, V>,
    missing: &[&'a str],
    entries: &mut ByKey<'a, Box<KeyEntry<V::State>>>,
) -> Result<DecisionsByKey, Failure> {
    let fail = |error| classify(error, None);
    let (session, context) = (loading.session, loading.context);
    let new = || KeyEntry { last_sequence: context.settings.first_sequence - 1, ..KeyEntry::default() };
    if context.bulk.is_some() {
        // What is not in memory is nowhere.
        entries.extend(missing.iter().map(|key| (*key, Box::new(new()))));
        let keys: Vec<&str> = entries.keys().copied().collect();
        return match session.has_decisions {
            Some(false) => Ok(DecisionsByKey::new()),
            _ => session.control.load_decisions(&session.client, &context.source, &keys).await.map_err(fail),
        };
    }
    if missing.is_empty() {
        return Ok(DecisionsByKey::new());
    }
    let decided = async {
        match session.has_decisions {
            Some(false) => Ok(DecisionsByKey::new()),
            _ => session.control.load_decisions(&session.client, &context.source, missing).await,
        }
    };
    let (stored, held, decided) = join3(
        V::load(&session.statements, &session.client, missing),
        session.control.load_held(&session.client, &context.source, missing),
        decided,
    )
    .await;
    let mut stored: HashMap<String, _> =
        stored.map_err(fail)?.into_iter().map(|loaded| (loaded.key.clone(), loaded)).collect();
    let mut held = held.map_err(fail)?;
    for key in missing {
        let mut entry = new();
        if let Some(loaded) = stored.remove(*key) {
            entry.last_sequence = loaded.last_sequence;
            entry.last_event_id = Some(loaded.last_event_id.into());
            entry.event_ids = match (context.settings.history, &entry.last_event_id) {
                (History::Off, Some(latest)) => EventIds::of(std::slice::from_ref(latest)),
                _ => loaded.event_ids,
            };
            entry.state = loaded.state;
            entry.stored = true;
        }
        entry.held = held.remove(*key);
        entries.insert(key, Box::new(entry));
    }
    decided.map_err(fail)
}

impl<V: View> Loading<'_, V> {
    /// Loads what is parked behind held keys as far as the batch can meet it: whole events for keys whose missing
    /// event is in the batch or that need healing, presence only for the others.
    pub async fn parked<'a>(
        &self,
        batch: &[Decoded<'a, V>],
        heal: &[(&'a str, i32)],
        entries: &ByKey<'a, Box<KeyEntry<V::State>>>,
        decisions: &DecisionsByKey,
        drain_limit: usize,
    ) -> Result<LoadedParked<'a>, Failure> {
        let decided = entries.iter().filter(|(key, entry)| is_decided(decisions, key, entry.last_sequence + 1));
        let mut to_drain: HashSet<&str> = decided.map(|(key, _)| *key).collect();
        let mut met: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for event in batch.iter().filter_map(|decoded| decoded.outcome.as_ref().ok()) {
            let Some(entry) = entries.get(event.key).filter(|entry| entry.held.is_some()) else { continue };
            if event.sequence == entry.last_sequence + 1 {
                to_drain.insert(event.key);
            } else if event.sequence > entry.last_sequence {
                met.entry(event.key).or_default().push(event.sequence);
            }
        }
        to_drain.extend(self.in_need(heal, entries).await?);
        if to_drain.is_empty() && met.is_empty() {
            return Ok(LoadedParked { to_drain, drain_limit, rows: ParkedByKey::new() });
        }
        let drain_limit = drain_limit.min(self.drain_limit(to_drain.iter().filter_map(|key| entries.get(key))));
        let pairs = || met.iter().flat_map(|(key, numbers)| numbers.iter().map(move |number| (*key, *number)));
        let (keys, sequences): (Vec<&str>, Vec<i64>) = pairs().unzip();
        let drained: Vec<&str> = to_drain.iter().copied().collect();
        let (session, source) = (self.session, &self.context.source);
        let limit = i64::try_from(drain_limit).unwrap_or(i64::MAX);
        let (whole, presence) = join(
            session.control.load_parked(&session.client, source, &drained, limit),
            session.control.load_presence(&session.client, source, &keys, &sequences),
        )
        .await;
        let fail = |error| classify(error, None);
        let mut parked = whole.map_err(fail)?;
        for (key, rows) in presence.map_err(fail)? {
            let known = parked.entry(key).or_default();
            for row in rows {
                if !known.iter().any(|other| other.sequence == row.sequence) {
                    known.push(row);
                }
            }
        }
        Ok(LoadedParked { to_drain, drain_limit, rows: parked })
    }

    /// Of the keys to heal those where something is parked that is not ahead any more, or counted wrongly: another
    /// process consumed what was missing, or did not know of what we had parked.
    async fn in_need<'a>(
        &self,
        heal: &[(&'a str, i32)],
        entries: &ByKey<'a, Box<KeyEntry<V::State>>>,
    ) -> Result<Vec<&'a str>, Failure> {
        let keys: Vec<&'a str> = heal.iter().map(|(key, _)| *key).collect();
        if keys.is_empty() {
            return Ok(keys);
        }
        let (session, source) = (self.session, &self.context.source);
        let parked = session.control.summarize_parked(&session.client, source, &keys).await;
        let parked = parked.map_err(|error| classify(error, None))?;
        let is_in_need = |key: &&str| {
            let Some(entry) = entries.get(*key) else { return false };
            let counted = entry.held.as_ref().map_or(0, |held| i64::from(held.parked_count));
            match parked.get(*key) {
                Some((lowest, count)) => *lowest <= entry.last_sequence + 1 || *count != counted,
                None => counted != 0,
            }
        };
        Ok(keys.into_iter().filter(is_in_need).collect())
    }

    /// How many events per key may be loaded so that all of them fit into a few batches' memory.
    fn drain_limit<'e>(&self, entries: impl Iterator<Item = &'e Box<KeyEntry<V::State>>>) -> usize
    where
        V::State: 'e,
    {
        let (mut keys, mut events, mut bytes) = (0usize, 0usize, 0usize);
        for held in entries.filter_map(|entry| entry.held.as_ref()) {
            keys += 1;
            events += usize::try_from(held.parked_count).unwrap_or(0);
            bytes += usize::try_from(held.parked_bytes).unwrap_or(0);
        }
        let budget = DRAIN_BATCHES * self.context.settings.max_batch_bytes;
        if bytes <= budget { usize::MAX } else { (budget / (bytes / events.max(1)).max(1) / keys).max(1) }
    }
}

/// Whether something was decided about that number.
fn is_decided(decisions: &DecisionsByKey, key: &str, sequence: i64) -> bool {
    decisions.get(key).into_iter().flatten().any(|decision| decision.covers(sequence))
}

/// What was loaded of the parked events.
pub struct LoadedParked<'a> {
    /// Keys whose lowest events were loaded whole.
    pub to_drain: HashSet<&'a str>,
    /// Most events loaded per key.
    pub drain_limit: usize,
    /// The rows.
    pub rows: ParkedByKey,
}

/// Parked events that one attempt loads may take as much memory as this many batches.
const DRAIN_BATCHES: usize = 4;
