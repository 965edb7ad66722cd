//! The applier of views whose rows are kept by key and sequence: one attempt at part of a batch is decode, load, fold,
//! commit, remember. Either all of it happens or none.
//!
//! Where entries of keys live between batches is a parameter ([`Keys`]): in a cache over Postgres, or in memory until all
//! is read.

mod cached;
mod course;
mod in_memory;
mod keys;
mod loading;
mod report;
mod session;

pub use cached::Cached;
pub use course::{Course, Heal};
pub use in_memory::{Filling, InMemory, ONLY_IN_ORDER};
use keys::Entries;
pub use keys::Keys;

use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::codec::frame::{self, Frame};
use crate::codec::schemas::{Schemas, WriterSchema};
use crate::crash;
use crate::domain::poison::Reason;
use crate::domain::record::Record;
use crate::domain::units::Partition;
use crate::engine::decode::{Decoder, Headed, Overrules, keys_of};
use crate::engine::fold::{Fold, ParkedLoad};
use crate::engine::plan::{Plan, Work};
use crate::failure::{Failure, Halt};
use crate::projector::applier::{Applier, Blame, Blocked, Done, Outcomes, Part, Partitions};
use crate::projector::context::ViewContext;
use crate::projector::lane::no_connection;
use crate::schemas::source::Absent;
use crate::status::Pause;
use crate::store::Connection;
use crate::store::progress::Advance;
use crate::store::rows::Stored;
use crate::telemetry::traces::{Step, Steps};
use loading::{LoadedParked, Loading};
use session::Session;

/// Applies a view's records by key.
pub struct Keyed<V: Stored, K: Keys<V>> {
    view: Arc<V>,
    context: Arc<ViewContext>,
    keys: K,
    /// None after a failure of the connection.
    session: Option<Session<V>>,
    /// Nothing was committed since it was last found that what was loaded did not hold.
    is_in_doubt: bool,
}

impl<V: Stored, K: Keys<V>> Keyed<V, K> {
    /// Without a connection yet.
    pub fn new(view: Arc<V>, context: Arc<ViewContext>, keys: K) -> Self {
        Keyed { view, context, keys, session: None, is_in_doubt: false }
    }

    fn session(&mut self) -> Result<&mut Session<V>, Failure> {
        self.session.as_mut().ok_or_else(no_connection)
    }

    /// The schemas that the framed records of an attempt were written with, without those that are refused whatever they say.
    /// Nothing is asked where none is framed.
    async fn schemas_of(&self, part: &Part<'_>, overrules: &Overrules) -> Result<Schemas, Failure> {
        let mut schemas = Schemas::default();
        let mut all = part.batch.iter().skip(part.start).take(part.len());
        if !all.any(|(_, record)| matches!(frame::of(&record), Ok(Some(_)))) {
            return Ok(schemas);
        }
        for (index, record) in part.records() {
            // What only looks like a frame is refused when it is decoded.
            let Ok(Some(frame)) = frame::of(&record) else { continue };
            if overrules.refused.contains_key(&record.origin()) {
                continue;
            }
            if schemas.get(frame.schema).is_some_and(|known| holds_for(known, &frame, &record)) {
                continue;
            }
            match self.context.schemas.find(frame.schema, record.origin(), record.payload.unwrap_or_default()).await {
                Ok(schema) => schemas.insert(frame.schema, schema),
                // What stands before it needs nothing of it.
                Err(_) if index > 0 => return Err(Failure::FirstOnly(index)),
                Err(Absent::Away(reason)) => return Err(Failure::RegistryAway(reason)),
                // Who cannot let a partition go has nothing else to do than to wait for it.
                Err(Absent::Unknown { detail, is_lasting: false }) if !K::RELOADS => {
                    return Err(Failure::RegistryAway(detail));
                }
                Err(Absent::Unknown { detail, .. }) => {
                    let (partition, offset) = (record.partition, record.offset);
                    return Err(Failure::UnknownSchema { partition, offset, detail });
                }
            }
        }
        Ok(schemas)
    }

    /// Splits the keys of a batch into entries that are remembered, and keys that have to be loaded.
    fn take_known<'a>(
        &mut self,
        keys: HashSet<&'a str, foldhash::fast::RandomState>,
        (owned, to_heal): (&Partitions, &HashSet<&str>),
    ) -> (Entries<'a, V::State>, Vec<&'a str>) {
        let mut entries = Entries::default();
        entries.reserve(keys.len());
        let mut missing = Vec::new();
        for key in keys {
            match self.keys.take(key, owned, to_heal.contains(key)) {
                Some(entry) => drop(entries.insert(key, entry)),
                None => missing.push(key),
            }
        }
        (entries, missing)
    }

    /// One attempt; gives what was committed, and the keys with more to drain.
    async fn try_once(&mut self, part: &Part<'_>, course: &Course, steps: &mut Steps) -> Result<(Done, Heal), Failure> {
        let (view, context) = (Arc::clone(&self.view), Arc::clone(&self.context));
        let schemas = self.schemas_of(part, &course.overrules).await?;
        #[allow(clippy::needless_late_init)]
        let (parked, decisions, known_schemas); // outlive the batch, whose events may be drained from them
        let limits = context.fold_limits();
        let decoder = Decoder { view: &*view, limits: limits.record, overrules: &course.overrules, schemas: &schemas };
        // Payloads are decoded one by one as they are folded: events of a whole batch would take several times its memory.
        let mut heads: Vec<Headed<'_>> = Vec::with_capacity(part.len());
        heads.extend(part.records().map(|(_, record)| decoder.head(&record)));
        crash::point("batch.decoded");
        steps.done(Step::Parse);

        let heal = course.heal_of(part);
        let to_heal: HashSet<&str> = heal.iter().map(|(key, _)| *key).collect();
        let mut keys = keys_of(&heads);
        keys.extend(&to_heal);
        let (mut entries, missing) = self.take_known(keys, (part.owned, &to_heal));
        let session = self.session()?;
        if !heal.is_empty() {
            // Perhaps because something was decided just now.
            session.forget_decisions();
        }
        session.look_for_decisions(context.source.view).await?;
        let session = self.session.as_ref().ok_or_else(no_connection)?;
        let loading = Loading { context: &context, session, is_in_doubt: self.is_in_doubt };
        decisions = self.keys.load(&loading, &missing, &mut entries).await?;
        let LoadedParked { to_drain, drain_limit, rows } =
            loading.parked(&heads, &heal, &entries, &decisions, course.drain_limit).await?;
        parked = rows;
        // The entries are out of memory by now: whoever cannot load them again cannot wait for a schema.
        known_schemas =
            loading::with_stored(&context.schemas, &schemas, &parked, &decisions).await.map_err(lost::<V, K>)?;
        crash::point("batch.loaded");
        steps.done(Step::Load);

        let mut fold = Fold::new(Decoder { schemas: &known_schemas, ..decoder }, limits);
        fold.reserve(entries.len(), heads.len());
        let mut cut: HashSet<&str> = HashSet::new();
        for (key, entry) in entries {
            let rows = parked.get(key).map(Vec::as_slice).unwrap_or_default();
            let loaded = ParkedLoad::of(to_drain.contains(key), rows.len(), drain_limit);
            let mut decided = decisions.get(key).map(Vec::as_slice).unwrap_or_default();
            if course.is_searching() {
                let first = course::first_of(decided, entry.last_sequence);
                if first.len() < decided.len() {
                    cut.insert(key);
                }
                decided = first;
            }
            fold.add_key(key, entry, (rows, loaded), decided);
        }
        for ((_, record), head) in part.records().zip(heads) {
            fold.take(fold.decoder().decode_headed(record, head));
        }
        for (key, partition) in &heal {
            fold.heal(key, *partition);
        }
        let mut plan = fold.finish();
        let session = self.session.as_ref().ok_or_else(no_connection)?;
        session.judge(&context, &mut plan).await?;
        steps.done(Step::Fold);
        self.commit(plan, (part, &cut), steps).await
    }

    async fn commit(
        &mut self,
        plan: Plan<'_, V>,
        (part, cut): (&Part<'_>, &HashSet<&str>),
        steps: &mut Steps,
    ) -> Result<(Done, Heal), Failure> {
        let advances = advances_of(&plan, part);
        if advances.is_empty() {
            let blocked = blocked_of(&plan);
            let unfinished = if K::KEEPS_UNWRITTEN { self.remember(plan, part, cut) } else { Heal::new() };
            return Ok((Done { advances, blocked }, unfinished));
        }
        crash::point("batch.folded");
        let started = Instant::now();
        let session = self.session.as_ref().ok_or_else(no_connection)?;
        let ended = Box::pin(session.commit(&self.context, &plan, &advances, K::WRITES_WITH_EACH_BATCH)).await?;
        crash::point("commit.done");
        steps.done_at(Step::Upsert, ended.written_at);
        steps.done(Step::Commit);
        self.is_in_doubt = false;
        report::report(&self.context, self.view.spec(), &plan, &advances, started.elapsed());
        let blocked = blocked_of(&plan);
        let unfinished = self.remember(plan, part, cut);
        self.show_bytes();
        Ok((Done { advances, blocked }, unfinished))
    }

    fn show_bytes(&self) {
        let bytes = i64::try_from(self.keys.bytes()).unwrap_or(i64::MAX);
        self.context.metrics.cache_bytes.with_label_values(&[self.context.source.view]).set(bytes);
    }

    /// Remembers the keys of a plan as they are stored now; gives those with more to drain. Those that were `cut` were folded
    /// without decisions that lie ahead: they have more, and are loaded anew.
    fn remember(&mut self, plan: Plan<'_, V>, part: &Part<'_>, cut: &HashSet<&str>) -> Heal {
        let mut unfinished = Heal::new();
        for (key, work) in plan.keys {
            let Some(partition) = work.partition else { continue };
            let is_cut = cut.contains(key);
            if work.unfinished || is_cut {
                unfinished.push((key.to_owned(), partition));
            }
            if is_cut {
                continue;
            }
            if let Some(owned) = part.owned.get(&partition) {
                let bytes = self.view.state_bytes(&work.entry.state);
                self.keys.put(key, work, bytes, (partition, owned.generation));
            }
        }
        unfinished
    }
}

/// Whether what is known of a schema holds for this record too: a refusal for what another value looks like does not.
fn holds_for(known: &WriterSchema, frame: &Frame<'_>, record: &Record<'_>) -> bool {
    let is_refused = matches!(known, WriterSchema::Refused(poison) if poison.reason == Reason::UnsupportedSchema);
    !is_refused || frame::disguised(record.payload.unwrap_or(frame.body)).is_some()
}

/// What a failure means after entries were taken out of memory: none that is waited for brings them back to who cannot
/// load them again.
fn lost<V: Stored, K: Keys<V>>(failure: Failure) -> Failure {
    match failure {
        Failure::RegistryAway(reason) if !K::RELOADS => Failure::Retry(reason),
        other => other,
    }
}

/// How the partitions move with a plan.
fn advances_of<V: Stored>(plan: &Plan<'_, V>, part: &Part<'_>) -> Vec<Advance> {
    // A key can move without a record: what it waited for was consumed elsewhere, or decided.
    let is_written =
        |work: &&Work<'_, V::State>| work.held_changed || work.decided || work.was_held != work.entry.held.is_some();
    let touched: HashSet<Partition> = plan.keys.values().filter(is_written).filter_map(|work| work.partition).collect();
    let touched = |partition: Partition| touched.contains(&partition);
    part.advances(&Outcomes { counters: &plan.counters, blocked: &plan.blocked, touched: &touched })
}

fn blocked_of<V: Stored>(plan: &Plan<'_, V>) -> Vec<Blocked> {
    let blocked = plan.blocked.iter();
    blocked
        .map(|(partition, (offset, why))| Blocked { partition: *partition, offset: *offset, why: why.clone() })
        .collect()
}

impl<V: Stored, K: Keys<V>> Applier for Keyed<V, K> {
    type Errand = Heal;
    type Course = Course;

    fn set_out(errand: Option<Heal>) -> Course {
        Course::new(errand.unwrap_or_default())
    }

    fn has_more(course: &Course) -> bool {
        !course.heal.is_empty()
    }

    fn join(course: Course, other: Course) -> Course {
        course.join(other)
    }

    fn ease(course: &mut Course) {
        course.drain_limit = course.drain_limit.div_ceil(2);
    }

    async fn connect(&mut self) -> Result<bool, Failure> {
        if self.session.as_ref().is_some_and(Session::is_usable) {
            return Ok(false);
        }
        if self.session.take().is_some() && !K::RELOADS {
            return Err(no_connection());
        }
        self.keys.forget();
        self.session = Some(Session::open(&*self.view, &self.context).await?);
        Ok(true)
    }

    fn disconnect(&mut self) {
        self.session = None;
    }

    fn connection(&self) -> Option<&Connection> {
        self.session.as_ref().map(Session::client)
    }

    async fn attempt(&mut self, part: &Part<'_>, course: &mut Course, steps: &mut Steps) -> Result<Done, Failure> {
        let session = self.session.as_mut().ok_or_else(no_connection)?;
        let mut lent = Vec::new();
        for (origin, poison) in session.refused_by_shown(&self.context, part).await? {
            if let Entry::Vacant(place) = course.overrules.refused.entry(origin) {
                place.insert(poison);
                lent.push(origin);
            }
        }
        // Boxed, as what is committed below: these futures are large, and whoever awaits them would hold them on its stack.
        let tried = Box::pin(self.try_once(part, course, steps)).await;
        // Somebody may have answered it before the next attempt.
        for origin in lent {
            course.overrules.refused.remove(&origin);
        }
        let (done, unfinished) = tried?;
        course.go_on(part, unfinished);
        Ok(done)
    }

    async fn blame(&mut self, part: &Part<'_>, course: &mut Course, failure: Failure) -> Result<Blame, Failure> {
        let session = self.session.as_ref().ok_or_else(no_connection)?;
        let detail = match failure {
            Failure::ReusedEventId { detail, event_ids } => {
                // Whose latest events these are, if that tells anything new.
                if course.learn_holders(session.holders_of(&event_ids).await?) {
                    return Ok(Blame::Settled);
                }
                detail
            }
            Failure::Record(detail) => detail,
            other => return Err(other),
        };
        course.blame(part, session, &self.context, &detail).await
    }

    fn forget(&mut self) {
        self.keys.forget();
        self.is_in_doubt = true;
        self.session.iter_mut().for_each(Session::forget_decisions);
    }

    fn rest(&mut self) {
        self.keys.rest();
        self.show_bytes();
    }

    fn opened(&mut self, partition: Partition) -> Result<(), Halt> {
        self.session.iter_mut().for_each(Session::forget_decisions);
        self.keys.opened(partition)
    }

    fn survives(&self, failure: &Failure) -> Result<(), Halt> {
        self.keys.survives(failure)
    }

    fn may_let_go(&self, partition: Partition, pause: &Pause) -> Result<(), Halt> {
        self.keys.may_let_go(partition, pause)
    }

    fn enough(&self) -> CancellationToken {
        self.keys.enough()
    }

    async fn finish(&mut self, owned: &Partitions) -> Result<(), Halt> {
        self.keys.finish(self.session.as_ref(), &self.context, owned).await
    }
}
