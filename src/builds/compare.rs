//! Compares two builds of a view, key by key: the rows of a key are a function of the events that it has consumed, so at
//! equal sequences they must be the same. Writes nothing but what was found.
//!
//! Both builds may be fed meanwhile. Each page of keys is read in one snapshot of both; keys that are not equally far in it
//! are put aside and looked at again, until they are, or do not move any more. A key that moves faster than the builds keep
//! abreast is never seen equal; it is judged otherwise ([`Hooks::judge_moving`]). Values are compared as text: the projection
//! is deterministic in the scale of its numbers too, and the text is what readers are shown. Partitions, offsets and
//! commits of the ledger's rows are not compared: an event that was sent twice counts wherever it was read first.
//!
//! What is bounded: pages by keys, keys put aside by [`Pace::aside`], rows looked at together by `ROWS_AT_ONCE` (one
//! key's rows are looked at in one piece, 50 bytes each).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use tokio_util::sync::CancellationToken;

use super::BuildError;
use crate::domain::build::{Build, BuildId};
use crate::domain::comparison::{COLUMNS, Comparison, Difference};
use crate::domain::history::History;
use crate::engine::view::ViewSpec;
use crate::store::keyed_rows::{BuildRows, Place, Print, Table, tables};
use crate::store::operations::DIFFERENCES;
use crate::store::{Connection, DbError};

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The view.
    pub spec: &'a ViewSpec,
    /// What readers read.
    pub old: Build,
    /// What they are to read.
    pub new: Build,
    /// What both keep of events ([`History::common`]): the ledgers are compared as far as that goes.
    pub history: History,
}

/// How much at once, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Keys of one page.
    pub page: usize,
    /// Keys that are put aside before they are looked at again.
    pub aside: usize,
    /// How often keys that move are looked at again.
    pub rounds: u32,
    /// How often keys that do not.
    pub still: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { page: 2_000, aside: 50_000, rounds: 20, still: 3 }
    }
}

/// Keys whose rows are looked at together.
const KEYS_AT_ONCE: usize = 100;
/// Rows that are looked at together, unless a single key has more.
const ROWS_AT_ONCE: i64 = 20_000;

/// What a comparison needs of who runs it.
pub trait Hooks: Send {
    /// So many keys of the pages are done, of those put aside some perhaps not.
    fn progress(&mut self, keys: u64);

    /// Comes back when each build has applied what the other one had applied when this was called.
    fn caught_up(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Keeps what was found. Each key comes once.
    fn found(&mut self, differences: &[Difference]) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Judges keys that have moved in every round, in this order: what differs, nothing for one that is equal; `None` for one
    /// of which that cannot be said: it is a difference by its sequence then.
    fn judge_moving(&mut self, keys: &[&str]) -> impl Future<Output = anyhow::Result<Vec<Option<Difference>>>> + Send {
        let untold = keys.iter().map(|_| None).collect();
        async { Ok(untold) }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The view does not say which rows belong to a key.
    #[error("view {0} does not say which rows belong to a key: its builds cannot be compared")]
    Undeclared(&'static str),
    /// Who asked for it does not want it any more.
    #[error("the comparison was cancelled")]
    Cancelled,
    /// A hook failed.
    #[error(transparent)]
    Hook(anyhow::Error),
    /// Postgres did not do it.
    #[error(transparent)]
    Database(#[from] BuildError),
}

impl From<DbError> for CompareError {
    fn from(error: DbError) -> Self {
        CompareError::Database(error.into())
    }
}

/// Compares. `client` serves nothing else meanwhile, and is given up by who drops the future.
pub async fn compare<H: Hooks>(
    client: &Connection,
    pair: Pair<'_>,
    pace: Pace,
    hooks: &mut H,
    cancel: &CancellationToken,
) -> Result<Comparison, CompareError> {
    let readers = snapshot(client, async || Readers::prepare(client, &pair).await).await?;
    let readers = readers.ok_or(CompareError::Undeclared(pair.spec.name))?;
    let mut course =
        Course { client, readers, pace, hooks, cancel, comparison: Comparison::default(), aside: Vec::new() };
    let (mut from, mut keys) = (Some(String::new()), 0);
    while let Some(first) = from {
        course.check_cancelled()?;
        let page = snapshot(client, async || course.readers.page(client, &first, pace.page).await).await?;
        keys += page.keys.len() as u64;
        from = page.next;
        course.judge(&page.keys).await?;
        course.hooks.progress(keys);
        if course.aside.len() >= pace.aside {
            course.look_again().await?;
        }
    }
    course.look_again().await?;
    Ok(course.comparison)
}

/// Keeps what was found for an operation, of [`DIFFERENCES`] keys at most; a key that is kept already gets what was found
/// last. Gives how many it has kept: none, once there is no more room.
pub async fn keep(client: &Connection, operation: i64, differences: &[Difference]) -> Result<u64, DbError> {
    let keys: Vec<&str> = differences.iter().map(|difference| difference.key.as_str()).collect();
    let found: Vec<&str> = differences.iter().map(|difference| difference.found.as_str()).collect();
    let columns: Vec<String> = differences
        .iter()
        .map(|difference| serde_json::to_string(&difference.columns).expect("texts and values are JSON"))
        .collect();
    let statement = include_str!("sql/put_differences.sql");
    client.execute(statement, &[&operation, &keys, &found, &columns, &DIFFERENCES]).await
}

/// Forgets what was found for an operation, whose comparison begins anew.
pub async fn forget(client: &Connection, operation: i64) -> Result<(), DbError> {
    client.execute(include_str!("sql/forget_differences.sql"), &[&operation]).await.map(drop)
}

/// Runs `read` in one snapshot of everything.
async fn snapshot<T>(client: &Connection, read: impl AsyncFnOnce() -> Result<T, DbError>) -> Result<T, CompareError> {
    // A page takes as long as it takes: there may be any number of events to a key.
    let begin = "begin isolation level repeatable read read only; set local statement_timeout = 0";
    client.batch_execute(begin).await?;
    let outcome = read().await.map_err(BuildError::from);
    Ok(super::end(client, outcome).await?)
}

/// A key as both builds have it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) key: String,
    old: Option<Print>,
    new: Option<Print>,
}

impl Seen {
    /// Neither has it.
    fn nowhere(key: &str) -> Self {
        Seen { key: key.to_owned(), old: None, new: None }
    }

    pub(super) fn sequences(&self) -> Sequences {
        let sequence = |print: &Option<Print>| print.as_ref().map(|print| print.sequence);
        (sequence(&self.old), sequence(&self.new))
    }

    fn rows(&self) -> i64 {
        let rows = |print: &Option<Print>| -> i64 {
            print.iter().flat_map(|print| &print.tables).map(|table| table.rows).sum()
        };
        rows(&self.old) + rows(&self.new)
    }

    /// Whether its rows in the table of that number may differ.
    fn differs_in(&self, table: usize) -> bool {
        let of = |print: &Option<Print>| print.as_ref().map(|print| print.tables[table]);
        of(&self.old) != of(&self.new)
    }
}

/// How far a key is in both builds; `None`: it is not there.
pub(super) type Sequences = (Option<i64>, Option<i64>);

/// A key that was not equally far in both.
struct Aside {
    key: String,
    sequences: Sequences,
    /// In how many looks in a row it has not moved.
    still: u32,
}

/// A page of the keys of both builds.
struct Page {
    keys: Vec<Seen>,
    /// Where the next one begins.
    next: Option<String>,
}

/// Puts together what both builds have, by key.
fn zip(old: Vec<Print>, new: Vec<Print>) -> BTreeMap<String, Seen> {
    let mut keys: BTreeMap<String, Seen> = BTreeMap::new();
    for print in old {
        keys.insert(print.key.clone(), Seen { old: Some(print), ..Seen::nowhere("") });
    }
    for print in new {
        let seen = keys.entry(print.key.clone()).or_insert_with(|| Seen::nowhere(""));
        seen.new = Some(print);
    }
    for (key, seen) in &mut keys {
        seen.key.clone_from(key);
    }
    keys
}

/// A page as far as both answers reach: where one of them was full, the other build's keys beyond it wait.
fn page_of(old: Vec<Print>, new: Vec<Print>, limit: usize) -> Page {
    let ends = [&old, &new].map(|prints| if prints.len() < limit { None } else { prints.last() });
    let end = ends.into_iter().flatten().map(|print| print.key.clone()).min();
    let mut keys = zip(old, new);
    // The least text that comes after it.
    let next = end.map(|end| format!("{end}\u{1}"));
    if let Some(next) = &next {
        keys.split_off(next);
    }
    Page { keys: keys.into_values().collect(), next }
}

/// Reads both builds.
pub(super) struct Readers {
    pub(super) old: BuildRows,
    pub(super) new: BuildRows,
    pub(super) tables: Vec<Table>,
}

impl Readers {
    async fn prepare(client: &Connection, pair: &Pair<'_>) -> Result<Option<Readers>, DbError> {
        let Some(rows) = &pair.spec.tables.rows else { return Ok(None) };
        let tables = tables(rows, pair.history);
        let id = |build| BuildId { view: pair.spec.name, build };
        let old = BuildRows::prepare(client, id(pair.old), &rows.of_key, &tables).await?;
        let new = BuildRows::prepare(client, id(pair.new), &rows.of_key, &tables).await?;
        Ok(Some(Readers { old, new, tables }))
    }

    async fn page(&self, client: &Connection, from: &str, limit: usize) -> Result<Page, DbError> {
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let old = self.old.page(client, from, rows).await?;
        let new = self.new.page(client, from, rows).await?;
        Ok(page_of(old, new, limit))
    }

    /// These keys, whether a build has them or not.
    async fn some(&self, client: &Connection, keys: &[&str]) -> Result<Vec<Seen>, DbError> {
        let mut seen = zip(self.old.some(client, keys).await?, self.new.some(client, keys).await?);
        Ok(keys.iter().map(|key| seen.remove(*key).unwrap_or_else(|| Seen::nowhere(key))).collect())
    }

    /// These keys, and what differs in those that are equally far and yet not the same.
    pub(super) async fn look(&self, client: &Connection, keys: &[&str]) -> Result<Vec<(Seen, Difference)>, DbError> {
        let seen = self.some(client, keys).await?;
        let mut differences: Vec<Difference> = seen.iter().map(|seen| Difference::of(&seen.key)).collect();
        for table in 0..self.tables.len() {
            let is_asked = |seen: &&Seen| {
                let (old, new) = seen.sequences();
                old == new && seen.differs_in(table)
            };
            let keys: Vec<&str> = seen.iter().filter(is_asked).map(|seen| seen.key.as_str()).collect();
            if !keys.is_empty() {
                self.look_into(client, (table, &|_: &Place| true), &keys, &mut differences).await?;
            }
        }
        Ok(seen.into_iter().zip(differences).collect())
    }

    /// Adds to `differences`, which are in the order of their keys, how these keys differ in one table, in those of its rows
    /// that are meant.
    pub(super) async fn look_into(
        &self,
        client: &Connection,
        (table, is_meant): (usize, &(dyn Fn(&Place) -> bool + Sync)),
        keys: &[&str],
        differences: &mut [Difference],
    ) -> Result<(), DbError> {
        let old = self.old.row_prints(client, table, keys).await?;
        let new = self.new.row_prints(client, table, keys).await?;
        let all: BTreeSet<&Place> = old.keys().chain(new.keys()).collect();
        let mut places: Vec<&Place> = Vec::new();
        let mut of_key: BTreeMap<&str, usize> = BTreeMap::new();
        for place in all.into_iter().filter(|place| is_meant(place) && old.get(*place) != new.get(*place)) {
            let count = of_key.entry(&place.0).or_default();
            *count += 1;
            if *count <= COLUMNS {
                places.push(place);
            }
        }
        let mut old = self.old.row_texts(client, table, &places).await?;
        let mut new = self.new.row_texts(client, table, &places).await?;
        let name = self.tables[table].shown_as;
        for difference in differences {
            let Some(count) = of_key.get(difference.key.as_str()) else { continue };
            for place in &places {
                if place.0 != difference.key {
                    continue;
                }
                let (old, new) = (old.remove(*place), new.remove(*place));
                if name.is_empty() {
                    difference.row(&old.unwrap_or_default(), &new.unwrap_or_default());
                } else {
                    let row = |row: Option<_>| row.map(|row| (place.1, row)).into_iter().collect();
                    difference.rows(name, &row(old), &row(new));
                }
            }
            difference.more += count.saturating_sub(COLUMNS) as u64;
        }
        Ok(())
    }
}

/// A comparison under way.
struct Course<'a, H> {
    client: &'a Connection,
    readers: Readers,
    pace: Pace,
    hooks: &'a mut H,
    cancel: &'a CancellationToken,
    comparison: Comparison,
    aside: Vec<Aside>,
}

impl<H: Hooks> Course<'_, H> {
    fn check_cancelled(&self) -> Result<(), CompareError> {
        if self.cancel.is_cancelled() { Err(CompareError::Cancelled) } else { Ok(()) }
    }

    /// Counts the keys that are equal, looks into those that are not, puts aside those that are not equally far.
    async fn judge(&mut self, keys: &[Seen]) -> Result<(), CompareError> {
        let (mut suspects, mut rows): (Vec<&str>, i64) = (Vec::new(), 0);
        for seen in keys {
            let (old, new) = seen.sequences();
            if old != new {
                self.put_aside(seen);
            } else if seen.old == seen.new {
                self.comparison.equal(1);
            } else {
                if suspects.len() >= KEYS_AT_ONCE || rows + seen.rows() > ROWS_AT_ONCE {
                    self.look_into(&suspects).await?;
                    (suspects, rows) = (Vec::new(), 0);
                }
                suspects.push(&seen.key);
                rows += seen.rows();
            }
        }
        self.look_into(&suspects).await
    }

    fn put_aside(&mut self, seen: &Seen) {
        self.aside.push(Aside { key: seen.key.clone(), sequences: seen.sequences(), still: 0 });
    }

    /// Looks into keys whose hashes differ, in a snapshot of their own: by then they may have moved.
    async fn look_into(&mut self, keys: &[&str]) -> Result<(), CompareError> {
        if keys.is_empty() {
            return Ok(());
        }
        self.check_cancelled()?;
        let looked = snapshot(self.client, async || self.readers.look(self.client, keys).await).await?;
        let mut differences = Vec::new();
        for (seen, difference) in looked {
            let (old, new) = seen.sequences();
            if old != new {
                self.put_aside(&seen);
            } else if difference.columns.is_empty() {
                // Columns in another order, say: nothing that a reader is shown.
                self.comparison.equal(1);
            } else {
                differences.push(difference);
            }
        }
        self.note(differences).await
    }

    async fn note(&mut self, differences: Vec<Difference>) -> Result<(), CompareError> {
        if !differences.is_empty() {
            self.hooks.found(&differences).await.map_err(CompareError::Hook)?;
        }
        for difference in differences {
            self.comparison.found(difference);
        }
        Ok(())
    }

    /// Looks at what was put aside until nothing is left of it; what moves on and on, or does not move, is a difference.
    async fn look_again(&mut self) -> Result<(), CompareError> {
        for round in 1.. {
            if self.aside.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(CompareError::Cancelled),
                caught_up = self.hooks.caught_up() => caught_up.map_err(CompareError::Hook)?,
            }
            let before = std::mem::take(&mut self.aside);
            for part in before.chunks(self.pace.page) {
                self.check_cancelled()?;
                self.look_at_part(part, round >= self.pace.rounds).await?;
            }
        }
        Ok(())
    }

    async fn look_at_part(&mut self, part: &[Aside], is_last_round: bool) -> Result<(), CompareError> {
        let keys: Vec<&str> = part.iter().map(|aside| aside.key.as_str()).collect();
        let seen = snapshot(self.client, async || self.readers.some(self.client, &keys).await).await?;
        let (mut level, mut differences, mut moving) = (Vec::new(), Vec::new(), Vec::new());
        for (before, seen) in part.iter().zip(seen) {
            let (old, new) = seen.sequences();
            let still = if before.sequences == (old, new) { before.still + 1 } else { 0 };
            match Difference::of_sequences(&seen.key, old, new) {
                None => level.push(seen),
                Some(difference) if still >= self.pace.still => differences.push(difference),
                Some(difference) if is_last_round => moving.push(difference),
                Some(_) => self.aside.push(Aside { key: seen.key, sequences: (old, new), still }),
            }
        }
        self.note(differences).await?;
        self.judge(&level).await?;
        self.judge_moving(moving).await
    }

    /// Keys that differ by their sequences, and no round has seen them stand still.
    async fn judge_moving(&mut self, by_sequence: Vec<Difference>) -> Result<(), CompareError> {
        if by_sequence.is_empty() {
            return Ok(());
        }
        let keys: Vec<&str> = by_sequence.iter().map(|difference| difference.key.as_str()).collect();
        let judged = self.hooks.judge_moving(&keys).await.map_err(CompareError::Hook)?;
        let mut differences = Vec::new();
        for (by_sequence, judged) in by_sequence.into_iter().zip(judged) {
            match judged {
                None => differences.push(by_sequence),
                Some(difference) if difference.columns.is_empty() => self.comparison.equal(1),
                Some(difference) => differences.push(difference),
            }
        }
        self.note(differences).await
    }
}
