//! Verifies a build: folds its keys again from its ledger and compares what they should be with the rows that are stored.
//! Writes nothing but temporary tables of its own session.
//!
//! Each page of keys is read in one snapshot of ledger and rows, which are committed together: whatever is projected
//! meanwhile makes no difference. Bounded by `KEYS_AT_ONCE` and `EVENTS_AT_ONCE`; a single key is folded in one piece.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::BuildError;
use super::compare::{Readers, Seen};
use crate::config::DatabaseSettings;
use crate::domain::build::BuildId;
use crate::domain::comparison::{COLUMNS, Comparison, Difference};
use crate::domain::history::History;
use crate::domain::ledger::LedgerRow;
use crate::domain::units::Sequence;
use crate::engine::refold::{Refold, Refolded, Unfoldable, Until};
use crate::engine::view::{ChangedKey, StoredDetails, View, WriteSet};
use crate::store::keyed_rows::{BuildRows, tables};
use crate::store::rows::Stored;
use crate::store::scratch::{self, KeyPage, Keys, Scratch};
use crate::store::{Connection, DbError, names, pool};

/// Keys of one page.
const KEYS_AT_ONCE: usize = 500;
/// Ledger rows of one page, unless a single key has more.
const EVENTS_AT_ONCE: i64 = 20_000;
/// Most keys that are named although nothing can be said of them.
const UNTOLD_NAMED: usize = 10;

/// Which keys are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// So many of those that have a row, any.
    Sample(u32),
    /// This one.
    Key(String),
}

/// What a verification found: `old` is what is stored, `new` what the ledger says it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Of the keys whose ledger tells.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Keys whose ledger does not, as it holds no payloads.
    pub untold: u64,
    /// The first of them, and why.
    pub untold_sample: BTreeMap<String, String>,
}

impl Verification {
    /// Whether every key was told, and is as it should be.
    pub fn is_clean(&self) -> bool {
        self.comparison.is_clean() && self.untold == 0
    }

    fn untold(&mut self, key: &str, why: &Unfoldable) {
        self.untold += 1;
        if self.untold_sample.len() < UNTOLD_NAMED {
            self.untold_sample.insert(key.to_owned(), why.to_string());
        }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The view does not say which rows belong to a key.
    #[error("view {0} does not say which rows belong to a key: it cannot be verified")]
    Undeclared(&'static str),
    /// Neither a row nor a ledger.
    #[error("there is nothing of the key {0:?}")]
    NoSuchKey(String),
    /// The build has been dropped, or its indexes are being built.
    #[error(transparent)]
    Database(#[from] BuildError),
}

impl From<DbError> for VerifyError {
    fn from(error: DbError) -> Self {
        VerifyError::Database(error.into())
    }
}

/// Verifies a build, whose keys begin with `first_sequence`; `told` hears how many keys are done.
pub async fn verify<V: Stored>(
    view: &V,
    settings: &DatabaseSettings,
    (build, first_sequence): (BuildId, Sequence),
    scope: &Scope,
    mut told: impl FnMut(u64) + Send,
) -> Result<Verification, VerifyError> {
    let client = pool::connect_writer(settings, &names::search_path(build)).await?;
    let mut course = Course::begin(view, client, (build, build), first_sequence).await?;
    match scope {
        Scope::All => {
            let mut after = Some(String::new());
            while let Some(last) = after {
                after = course.page_after(&last).await?;
                told(course.keys);
            }
        }
        Scope::Sample(count) => {
            let seed = fastrand::i64(..);
            course.open().await?;
            let keys = course.sources.sample(&course.client, seed, (*count).into()).await;
            let keys = course.close(keys).await?;
            for part in keys.chunks(KEYS_AT_ONCE) {
                course.some(part).await?;
                told(course.keys);
            }
        }
        Scope::Key(key) => {
            course.some(std::slice::from_ref(key)).await?;
            if course.keys == 0 {
                return Err(VerifyError::NoSuchKey(key.clone()));
            }
        }
    }
    Ok(course.found)
}

/// Up to which number keys are folded; those that are not here, to the end of their ledger.
pub(super) type Ends = BTreeMap<String, Sequence>;

/// A verification under way.
pub(super) struct Course<'v, V: Stored> {
    view: &'v V,
    first_sequence: Sequence,
    pub(super) client: Connection,
    sources: Keys,
    scratch: Scratch<V>,
    /// Those of the rows that are stored, and of the scratch tables.
    pub(super) readers: Readers,
    /// Keys that were there.
    keys: u64,
    found: Verification,
}

/// What a page should be: its keys as they were folded, the rows of their further table, and those that cannot be folded.
struct Folded<'a, V: View> {
    keys: Vec<(&'a str, Refolded<V::State>)>,
    details: Vec<V::Detail<'a>>,
    unfoldable: BTreeMap<&'a str, Unfoldable>,
}

impl<'v, V: Stored> Course<'v, V> {
    /// Of the ledger of one build and the rows of a build, mostly the same.
    pub(super) async fn begin(
        view: &'v V,
        client: Connection,
        (ledger_of, rows_of): (BuildId, BuildId),
        first_sequence: Sequence,
    ) -> Result<Self, VerifyError> {
        let scripts = view.spec().tables;
        let keyed = scripts.rows.ok_or(VerifyError::Undeclared(view.spec().name))?;
        let sources = Keys::prepare(&client, ledger_of, &keyed.of_key).await?;
        let scratch = Scratch::create(view, &client, (&scripts, &keyed)).await?;
        client.batch_execute("begin").await?;
        let tables = tables(&keyed, History::Off);
        let prepared = async {
            let (search_path, schema) = (scratch::search_path_of(rows_of), names::schema(rows_of));
            let stored = BuildRows::prepare_in(&client, (&search_path, &schema), &keyed.of_key, &tables).await?;
            let place = (scratch::SEARCH_PATH, scratch::SCHEMA);
            Ok::<_, BuildError>((stored, BuildRows::prepare_in(&client, place, &keyed.of_key, &tables).await?))
        };
        let prepared = prepared.await;
        let (old, new) = super::end(&client, prepared).await?;
        let (readers, found) = (Readers { old, new, tables }, Verification::default());
        Ok(Course { view, first_sequence, client, sources, scratch, readers, keys: 0, found })
    }

    /// From here on everything is of one moment.
    pub(super) async fn open(&self) -> Result<(), DbError> {
        // A page takes as long as it takes: there may be any number of events to a key.
        self.client.batch_execute("begin isolation level repeatable read; set local statement_timeout = 0").await
    }

    /// The moment is over; what was written to the scratch tables goes with it.
    pub(super) async fn close<T>(&self, outcome: Result<T, DbError>) -> Result<T, VerifyError> {
        self.client.batch_execute("rollback").await?;
        Ok(outcome?)
    }

    /// Verifies the keys that follow `after`; gives the last of them if there are more.
    async fn page_after(&mut self, after: &str) -> Result<Option<String>, VerifyError> {
        self.open().await?;
        let looked = self.look_after(after).await;
        let (looked, last) = self.close(looked).await?;
        self.note(looked);
        Ok(last)
    }

    /// Verifies these keys, as far as they are there.
    async fn some(&mut self, keys: &[String]) -> Result<(), VerifyError> {
        self.open().await?;
        let looked = self.look(keys, &Ends::new()).await;
        let looked = self.close(looked).await?;
        self.note(looked);
        Ok(())
    }

    async fn look_after(&self, after: &str) -> Result<(Vec<Looked>, Option<String>), DbError> {
        let limit = i64::try_from(KEYS_AT_ONCE).unwrap_or(i64::MAX);
        let (page, has_more) = self.sources.page(&self.client, after, limit).await?;
        let (keys, is_cut) = at_once(page);
        let last = keys.last().cloned().filter(|_| has_more || is_cut);
        Ok((self.look(&keys, &Ends::new()).await?, last))
    }

    /// What is found of these keys, inside a snapshot.
    pub(super) async fn look(&self, keys: &[String], ends: &Ends) -> Result<Vec<Looked>, DbError> {
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let ledger = self.sources.ledger(&self.client, &names).await?;
        let rows = ledger.rows()?;
        let folded = self.fold(&rows, ends, &BTreeMap::new());
        let mut seen = self.compare(&folded, &names).await?;
        // What a payload leaves open the stored rows may tell. They are asked only where it matters.
        let is_different = |(_, found): &&(Seen, Difference)| !found.columns.is_empty();
        let differing: Vec<String> = seen.iter().filter(is_different).map(|(seen, _)| seen.key.clone()).collect();
        let differing: Vec<&str> = differing.iter().map(String::as_str).collect();
        if !differing.is_empty() && self.readers.tables.len() > 1 {
            let stored = self.stored_details(&differing).await?;
            let rows: Vec<LedgerRow<'_>> = rows.iter().filter(|row| stored.contains_key(row.key)).cloned().collect();
            let again = self.fold(&rows, ends, &stored);
            let again = self.compare(&again, &differing).await?;
            seen.retain(|(seen, _)| !stored.contains_key(&seen.key));
            seen.extend(again);
        }
        let unfoldable = folded.unfoldable;
        Ok(seen.into_iter().map(|(seen, found)| Looked::of(seen, found, &unfoldable)).collect())
    }

    fn fold<'a>(
        &self,
        rows: &'a [LedgerRow<'a>],
        ends: &Ends,
        stored: &BTreeMap<String, StoredDetails>,
    ) -> Folded<'a, V> {
        let mut folded = Folded { keys: Vec::new(), details: Vec::new(), unfoldable: BTreeMap::new() };
        let nothing = StoredDetails::new();
        for of_key in rows.chunk_by(|one, next| one.key == next.key) {
            let key = of_key[0].key;
            let stored = stored.get(key).unwrap_or(&nothing);
            let until = ends.get(key).map_or(Until::End, |end| Until::Sequence(*end));
            let (mut refold, before) = (Refold::new(self.view, self.first_sequence), folded.details.len());
            let ended =
                of_key.iter().try_for_each(|row| refold.take(row, until, stored, &mut folded.details).map(drop));
            match (ended, refold.finish()) {
                (Ok(()), Some(key_now)) => folded.keys.push((key, key_now)),
                (Ok(()), None) => {}
                (Err(why), _) => {
                    folded.details.truncate(before);
                    folded.unfoldable.insert(key, why);
                }
            }
        }
        folded
    }

    /// Has the scratch tables hold what was folded, and compares these keys.
    async fn compare(&self, folded: &Folded<'_, V>, keys: &[&str]) -> Result<Vec<(Seen, Difference)>, DbError> {
        let changed = folded.keys.iter().map(|(key, folded)| ChangedKey {
            key,
            base_sequence: None,
            last_sequence: folded.last_sequence,
            last_event_id: &folded.last_event_id,
            state: &folded.state,
        });
        let set = WriteSet { changed: changed.collect(), details: &folded.details };
        self.scratch.write(&self.client, &set).await?;
        self.readers.look(&self.client, keys).await
    }

    async fn stored_details(&self, keys: &[&str]) -> Result<BTreeMap<String, StoredDetails>, DbError> {
        let mut stored: BTreeMap<String, StoredDetails> =
            keys.iter().map(|key| ((*key).to_owned(), StoredDetails::new())).collect();
        let prints = self.readers.old.row_prints(&self.client, DETAILS, keys).await?;
        let places: Vec<_> = prints.keys().collect();
        for ((key, number), row) in self.readers.old.row_texts(&self.client, DETAILS, &places).await? {
            stored.entry(key).or_default().insert(number, row);
        }
        Ok(stored)
    }

    fn note(&mut self, looked: Vec<Looked>) {
        for looked in looked {
            self.keys += u64::from(!matches!(looked, Looked::Nowhere));
            match looked {
                Looked::Nowhere => {}
                Looked::Equal(_) => self.found.comparison.equal(1),
                Looked::Different(difference) => self.found.comparison.found(difference),
                Looked::Untold(key, why) => self.found.untold(&key, &why),
            }
        }
    }
}

/// The place of a view's further table among those that are compared: the first after the keys' own.
const DETAILS: usize = 1;

/// The first keys of a page, as many as are folded at once; and whether that leaves some.
fn at_once(page: KeyPage) -> (Vec<String>, bool) {
    let (all, mut events, mut keys) = (page.len(), 0, Vec::new());
    for (key, count) in page {
        events += count;
        if events > EVENTS_AT_ONCE && !keys.is_empty() {
            break;
        }
        keys.push(key);
    }
    let is_cut = keys.len() < all;
    (keys, is_cut)
}

/// What was found of a key.
pub(super) enum Looked {
    Nowhere,
    Equal(String),
    Different(Difference),
    Untold(String, Unfoldable),
}

impl Looked {
    fn of(seen: Seen, found: Difference, unfoldable: &BTreeMap<&str, Unfoldable>) -> Looked {
        let (old, new) = seen.sequences();
        match unfoldable.get(seen.key.as_str()) {
            Some(why @ Unfoldable::NoPayload(_)) => return Looked::Untold(seen.key, why.clone()),
            Some(why) => return Looked::Different(damage(&seen.key, why)),
            None if old.is_none() && new.is_none() => return Looked::Nowhere,
            None => {}
        }
        match Difference::of_sequences(&seen.key, old, new) {
            Some(difference) => Looked::Different(difference),
            None if found.columns.is_empty() => Looked::Equal(seen.key),
            None => Looked::Different(found),
        }
    }
}

/// What is wrong with a ledger that cannot be folded.
fn damage(key: &str, why: &Unfoldable) -> Difference {
    let mut difference = Difference::of(key);
    match why {
        Unfoldable::Missing { from, to } => {
            for number in (from.0..=to.0).take(COLUMNS) {
                difference.values(&format!("events[{number}]"), Value::Null, "an event that was consumed".into());
            }
            difference.more += u64::try_from(to.0 - from.0 + 1).unwrap_or(0).saturating_sub(COLUMNS as u64);
        }
        Unfoldable::NoPayload(sequence) => {
            difference.values(&format!("events[{sequence}].payload"), Value::Null, "a payload".into());
        }
        Unfoldable::Refused(sequence, poison) => {
            let refused = format!("cannot be folded: {poison}");
            difference.values(&format!("events[{sequence}]"), refused.into(), "an event that was folded".into());
        }
    }
    difference
}
