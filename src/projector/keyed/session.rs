//! Writes what a batch made of its keys in one fenced transaction: view rows, ledger, parked events, holds, dead letters.
//! The only place that writes view rows.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::{join, join4, join5};

use crate::domain::history::History;
use crate::domain::ledger::{LedgerRow, Origin};
use crate::domain::poison::Poison;
use crate::domain::units::{Offset, Partition};
use crate::engine::decisions::Verdict;
use crate::engine::plan::{ByKey, Plan, Work};
use crate::engine::view::{ChangedKey, View, WriteSet};
use crate::failure::Failure;
use crate::projector::applier::Part;
use crate::projector::context::ViewContext;
use crate::store::control::{self, ControlStatements, DecisionsByKey, HeldRow};
use crate::store::fence::{Committed, FencedConnection, Patience, Writing};
use crate::store::ledger::{Commit, LedgerWriter};
use crate::store::progress::Advance;
use crate::store::refusals::RefusalStatements;
use crate::store::rows::{Rows, Stored, Written};
use crate::store::sqlstate::classify;
use crate::store::strangers::StrangerStatements;
use crate::store::{Connection, DbError, names};

/// A fenced connection with the prepared statements of a view's build.
pub struct Session<V: Stored> {
    fenced: FencedConnection,
    /// The view's rows.
    pub rows: V::Rows,
    /// What every view has.
    pub control: ControlStatements,
    ledger: LedgerWriter,
    strangers: StrangerStatements,
    /// None where readers read this build.
    refusals: Option<RefusalStatements>,
    /// The view's constraint on event ids.
    event_id_constraint: Option<String>,
    /// Whether there are decisions about events, as far as it was asked.
    has_decisions: Option<bool>,
}

impl<V: Stored> Session<V> {
    /// Connects and prepares.
    pub async fn open(view: &V, context: &ViewContext) -> Result<Self, Failure> {
        let fail = |error| classify(error, None);
        let search_path = names::search_path(context.source.id());
        let fenced = FencedConnection::open(&context.database, &search_path).await.map_err(fail)?;
        let rows = V::Rows::prepare(view, fenced.client()).await.map_err(fail)?;
        let control = ControlStatements::prepare(fenced.client()).await.map_err(fail)?;
        let event_id_constraint = view.spec().event_id_constraint.as_deref().map(str::to_owned);
        let ledger = LedgerWriter::prepare(fenced.client()).await.map_err(fail)?;
        let strangers = StrangerStatements::prepare(fenced.client()).await.map_err(fail)?;
        let refusals = RefusalStatements::prepare(fenced.client(), &context.source).await.map_err(fail)?;
        Ok(Session { fenced, rows, control, ledger, strangers, refusals, event_id_constraint, has_decisions: None })
    }

    /// The connection.
    pub fn client(&self) -> &Connection {
        self.fenced.client()
    }

    /// Whether the connection can take another transaction.
    pub fn is_usable(&self) -> bool {
        self.fenced.is_usable()
    }

    /// Asks again, before the next load, whether there are decisions.
    pub fn forget_decisions(&mut self) {
        self.has_decisions = None;
    }

    /// Learns whether there are decisions to load with keys: nearly always there are none.
    pub async fn look_for_decisions(&mut self, view: &str) -> Result<(), Failure> {
        if self.has_decisions.is_none() {
            let any = control::any_decisions(self.client(), view).await.map_err(|error| classify(error, None))?;
            self.has_decisions = Some(any);
        }
        Ok(())
    }

    /// What was decided about `keys` and is yet to be folded with; asks nothing where nothing was ever decided.
    pub async fn decisions_of(&self, context: &ViewContext, keys: &[&str]) -> Result<DecisionsByKey, Failure> {
        if self.has_decisions == Some(false) {
            return Ok(DecisionsByKey::new());
        }
        let decisions = self.control.load_untaken(self.client(), &context.source, keys).await;
        decisions.map_err(|error| classify(error, None))
    }

    /// Where the record was read that an operator put next in `key`, behind what was skipped. Asks nothing where nothing was
    /// ever decided.
    pub async fn next_substitute(&self, context: &ViewContext, key: &str) -> Result<Option<Origin>, Failure> {
        let decisions = self.decisions_of(context, &[key]).await?;
        let Some(decisions) = decisions.get(key) else { return Ok(None) };
        let stored = self.rows.load(self.client(), &[key]).await.map_err(|error| classify(error, None))?;
        let mut last =
            stored.first().map_or(context.meaning.rules.first_sequence.previous(), |loaded| loaded.last_sequence);
        for decision in decisions {
            match &decision.verdict {
                _ if decision.sequence_to <= last => {}
                _ if !decision.covers(last.next()) => break,
                Verdict::Skip => last = decision.sequence_to,
                Verdict::Take(substitute) => return Ok(Some(substitute.origin)),
            }
        }
        Ok(None)
    }

    /// Where the lowest parked event of `key` was read.
    pub async fn lowest_parked(&self, context: &ViewContext, key: &str) -> Result<Option<Origin>, Failure> {
        let rows = self.control.load_parked(self.client(), &context.source, &[key], 1).await;
        let rows = rows.map_err(|error| classify(error, None))?;
        Ok(rows.get(key).and_then(|rows| rows.first()).map(|row| row.origin))
    }

    /// Of `event_ids`, those that are the latest of a key, with that key.
    pub async fn holders_of(&self, event_ids: &[String]) -> Result<HashMap<String, String>, Failure> {
        let ids: Vec<&str> = event_ids.iter().map(String::as_str).collect();
        let holders = self.rows.holders_of(self.client(), &ids).await.map_err(|error| classify(error, None))?;
        Ok(holders.into_iter().collect())
    }

    /// What the build that readers read has refused of these records for what stands outside of them. Nothing is asked for that
    /// build itself.
    pub async fn refused_by_shown(
        &mut self,
        context: &ViewContext,
        part: &Part<'_>,
    ) -> Result<HashMap<Origin, Poison>, Failure> {
        let Some(refusals) = &self.refusals else { return Ok(HashMap::new()) };
        let mut spans: BTreeMap<Partition, (Offset, Offset)> = BTreeMap::new();
        for (_, record) in part.records() {
            // Offsets only grow.
            spans.entry(record.partition).or_insert((record.offset, record.offset)).1 = record.offset;
        }
        if spans.is_empty() {
            return Ok(HashMap::new());
        }
        let refused = refusals.between(self.client(), &context.source, &spans).await;
        let refused = refused.map_err(|error| classify(error, None))?;
        if refused.is_none() {
            self.refusals = None;
        }
        Ok(refused.unwrap_or_default())
    }

    /// Judges the late events of a plan that are none of their keys' events. Asks nothing where there are none.
    pub async fn judge(&self, context: &ViewContext, plan: &mut Plan<'_, V>) -> Result<(), Failure> {
        if !plan.strangers.is_empty() {
            // A ledger that is being filled in bulk has no index, and holds all that was consumed.
            let known =
                self.strangers.known(self.client(), &context.source, &plan.strangers, !context.is_filling).await;
            plan.judge(&known.map_err(|error| classify(error, None))?);
        }
        Ok(())
    }

    /// Commits the plan and the advances, or changes nothing. Rows of keys are left out unless `with_keys`.
    pub async fn commit(
        &self,
        context: &ViewContext,
        plan: &Plan<'_, V>,
        advances: &[Advance],
        with_keys: bool,
    ) -> Result<Committed, Failure> {
        let moves = (&context.source, advances, Patience::AsSet);
        let writes = |writing| self.write(writing, context, plan, (advances, with_keys));
        let confirmed = context.guard.confirm();
        let committed = self.fenced.commit(moves, writes, confirmed, |error| self.classify(error)).await;
        committed.map_err(|failure| with_event_ids(failure, plan))
    }

    /// Writes keys that were kept in memory, if the partitions are still ours.
    pub async fn write_keys(
        &self,
        context: &ViewContext,
        changed: Vec<ChangedKey<'_, V::State>>,
        advances: &[Advance],
    ) -> Result<(), Failure> {
        let set: WriteSet<'_, '_, V> = WriteSet { changed, details: &[] };
        let writes = async |writing| match self.rows.write(writing, &set).await {
            Ok(Written::All) => Ok(()),
            Ok(Written::Stale) => Err(Failure::Stale),
            Err(error) => Err(self.classify(error)),
        };
        let moves = (&context.source, advances, Patience::Endless);
        self.fenced.commit(moves, writes, context.guard.confirm(), |error| self.classify(error)).await.map(drop)
    }

    fn classify(&self, error: DbError) -> Failure {
        classify(error, self.event_id_constraint.as_deref())
    }

    /// Sends the rows, and says whether they were as they were meant.
    async fn write(
        &self,
        writing: Writing<'_>,
        context: &ViewContext,
        plan: &Plan<'_, V>,
        (advances, with_keys): (&[Advance], bool),
    ) -> Result<(), Failure> {
        let keys = plan.in_order();
        let ledger = if context.meaning.rules.history == History::Off { &[] } else { plan.ledger.as_slice() };
        let ledger = in_commits(&keys, ledger, advances)?;
        let set = write_set(plan, if with_keys { &keys } else { &[] });
        let rows = self.rows.write(writing, &set);
        let (writes, notes) = (self.ledger.write(writing, &ledger), self.ledger.note(writing, &ledger));
        let (rows, writes, notes, control) = join4(rows, writes, notes, self.write_control(context, plan, &keys)).await;
        // In the order in which they were sent: what follows a failure fails, too.
        let rows = rows.map_err(|error| self.classify(error))?;
        writes.and(notes).map_err(|error| self.classify(error))?;
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
        let (client, source) = (self.client(), &context.source);
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

fn write_set<'p, 'a, V: Stored>(plan: &'p Plan<'a, V>, keys: &[InWork<'p, 'a, V>]) -> WriteSet<'p, 'a, V> {
    let changed = keys
        .iter()
        .filter(|(_, work)| work.changed)
        .map(|(key, work)| ChangedKey {
            key,
            base_sequence: work.base_sequence,
            last_sequence: work.entry.last_sequence,
            last_event_id: work.entry.last_event_id.as_deref().expect("a changed key has consumed an event"),
            state: &work.entry.state,
        })
        .collect();
    WriteSet { changed, details: &plan.details }
}

/// The ledger rows by key and number, each with its commit: that of the partition in whose turn its key is, so that all rows of
/// a key in one transaction have the same. `keys` are in order.
fn in_commits<'p, 'a, S>(
    keys: &[(&'a str, &'p Work<'a, S>)],
    ledger: &'p [LedgerRow<'a>],
    advances: &[Advance],
) -> Result<Vec<(Commit, &'p LedgerRow<'a>)>, Failure> {
    let numbers: HashMap<Partition, i64> = advances.iter().map(|advance| (advance.partition, advance.commit)).collect();
    let mut places: ByKey<'_, (usize, Commit)> = ByKey::with_capacity_and_hasher(keys.len(), Default::default());
    for (place, (key, work)) in keys.iter().enumerate() {
        let commit = work.partition.and_then(|partition| Some(Commit { partition, number: *numbers.get(&partition)? }));
        places.extend(commit.map(|commit| (*key, (place, commit))));
    }
    let placed = ledger.iter().map(|row| {
        let (place, commit) = places.get(row.key).copied().ok_or_else(|| {
            let detail = format!("`{}` has consumed {} in nobody's turn", row.key, row.sequence);
            Failure::halt("internal_error", detail, "this is a bug: report it with the log, then restart")
        })?;
        Ok((place, commit, row))
    });
    let mut placed = placed.collect::<Result<Vec<_>, Failure>>()?;
    // Numbers of one key were consumed in order, which a stable sort keeps.
    placed.sort_by_key(|(place, ..)| *place);
    Ok(placed.into_iter().map(|(_, commit, row)| (commit, row)).collect())
}

fn held_rows<'p, S>(keys: &[(&'p str, &'p Work<'_, S>)]) -> (Vec<HeldRow<'p>>, Vec<&'p str>) {
    let (mut put, mut released) = (Vec::new(), Vec::new());
    for (key, work) in keys {
        match (&work.entry.held, work.partition) {
            (Some(held), Some(partition)) if work.held_changed => {
                put.push(HeldRow { key, held, partition });
            }
            (None, _) if work.was_held => released.push(*key),
            _ => {}
        }
    }
    (put, released)
}

/// Adds what the plan wrote to the refusal of an event id.
fn with_event_ids<V: Stored>(failure: Failure, plan: &Plan<'_, V>) -> Failure {
    match failure {
        Failure::ReusedEventId { detail, .. } => {
            let event_ids = plan.ledger.iter().map(|row| row.event_id.as_ref().to_owned()).collect();
            Failure::ReusedEventId { detail, event_ids }
        }
        other => other,
    }
}
