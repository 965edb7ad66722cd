//! Reads ledgers as they grow: whose rows, of which commits, and how one build's commits relate to another's.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::Transaction;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use crate::domain::build::{Build, BuildId};
use crate::domain::changes::Reached;
use crate::domain::units::{Partition, Sequence};
use crate::store::names;
use crate::store::read::{ReadError, ReadPool};

/// A row of a view as readers are shown it, with what it may be chosen by.
#[derive(Debug)]
pub struct Shown {
    /// The row as a JSON object.
    pub json: String,
    /// Words that it may be chosen by; the view says which.
    pub words: Vec<Option<String>>,
    /// When it was changed last, say its events.
    pub moment: Timestamp,
    /// The number of its last event.
    pub sequence: Sequence,
    /// And that event's id.
    pub event_id: String,
}

/// Reads the rows of some keys as they are now; keys without a row are left out.
pub type ShownOf = fn(ReadPool, Vec<String>) -> BoxFuture<'static, Result<Vec<(String, Shown)>, ReadError>>;

/// How far a build is, in one snapshot with which build readers read.
#[derive(Debug, Clone)]
pub struct Horizon {
    /// The active build.
    pub active: Build,
    /// The number of the last commit of each partition of the build that was asked about.
    pub commits: HashMap<Partition, i64>,
}

/// Readers were taken from one build to another.
#[derive(Debug, Clone)]
pub struct Switch {
    /// Its number.
    pub id: i64,
    /// From where.
    pub from: Build,
    /// To where.
    pub to: Build,
    /// The last commit of each partition that the old build had.
    pub from_commits: HashMap<Partition, i64>,
    /// Commits of the new one whose rows the old one had by then.
    pub to_commits: HashMap<Partition, i64>,
    /// Whether the old build is still there.
    pub is_old_there: bool,
    /// Whether the old build keeps a ledger. Without one it does not say what it has told.
    pub is_old_kept: bool,
}

/// What is to be read of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// The partition.
    pub partition: Partition,
    /// From there on.
    pub from: Reached,
    /// Up to this commit, and all of it.
    pub until: i64,
}

/// One row of a ledger, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The partition in whose turn it was committed.
    pub partition: Partition,
    /// The number of that commit.
    pub commit: i64,
    /// Key.
    pub key: String,
    /// The number that the key consumed.
    pub sequence: Sequence,
    /// Event id.
    pub event_id: String,
    /// Event type.
    pub event_type: String,
    /// What it did, as the ledger says.
    pub effect: String,
    /// Whether the ledger has the row. One that somebody took out of it is told to nobody, and keeps its place.
    pub is_there: bool,
}

/// Another row, where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// The partition in whose turn it was committed.
    pub partition: Partition,
    /// The number of that commit.
    pub commit: i64,
    /// Its number within its key.
    pub sequence: Sequence,
}

/// How far `build` is, or the active one; `None` if no build is active.
pub async fn horizon(pool: &ReadPool, view: &str, build: Option<Build>) -> Result<Option<Horizon>, ReadError> {
    pool.within_deadline(async {
        let connection = pool.get().await?;
        let statement = connection.prepare_cached(include_str!("sql/read_horizon.sql")).await?;
        let rows = connection.query(&statement, &[&view, &build.map(|build| build.0)]).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let mut horizon = Horizon { active: Build(first.try_get(0)?), commits: HashMap::new() };
        for row in &rows {
            // No partition of the build was taken over yet.
            if let (Some(partition), Some(commit)) = (row.try_get(1)?, row.try_get(2)?) {
                horizon.commits.insert(Partition(partition), commit);
            }
        }
        Ok(Some(horizon))
    })
    .await
}

/// The last switch away from `build`, if there was one.
pub async fn last_switch(pool: &ReadPool, build: BuildId) -> Result<Option<Switch>, ReadError> {
    pool.within_deadline(async {
        let connection = pool.get().await?;
        let statement = connection.prepare_cached(include_str!("sql/last_switch.sql")).await?;
        let row = connection.query_opt(&statement, &[&build.view, &build.build.0]).await?;
        row.as_ref().map(switch_of).transpose()
    })
    .await
}

/// The switch of that number.
pub async fn switch_of_id(pool: &ReadPool, view: &str, id: i64) -> Result<Option<Switch>, ReadError> {
    pool.within_deadline(async {
        let connection = pool.get().await?;
        let statement = connection.prepare_cached(include_str!("sql/switch_of_id.sql")).await?;
        let row = connection.query_opt(&statement, &[&view, &id]).await?;
        row.as_ref().map(switch_of).transpose()
    })
    .await
}

fn switch_of(row: &Row) -> Result<Switch, ReadError> {
    Ok(Switch {
        id: row.try_get(0)?,
        from: Build(row.try_get(1)?),
        to: Build(row.try_get(2)?),
        from_commits: commits_of(row.try_get(3)?)?,
        to_commits: commits_of(row.try_get(4)?)?,
        is_old_there: row.try_get(5)?,
        is_old_kept: row.try_get(6)?,
    })
}

/// Commit numbers by partition: `{"0": 17}`.
fn commits_of(json: serde_json::Value) -> Result<HashMap<Partition, i64>, ReadError> {
    let numbers: HashMap<String, i64> =
        serde_json::from_value(json).map_err(|error| ReadError::unreadable(error.into()))?;
    let number = |(partition, commit): (String, i64)| Ok((Partition(partition.parse()?), commit));
    let numbers: Result<_, std::num::ParseIntError> = numbers.into_iter().map(number).collect();
    numbers.map_err(|error| ReadError::unreadable(error.into()))
}

/// Up to `limit` rows of each partition, in order within each.
pub async fn page(pool: &ReadPool, build: BuildId, ahead: &[Ahead], limit: usize) -> Result<Vec<Entry>, ReadError> {
    let partitions: Vec<i32> = ahead.iter().map(|part| part.partition.0).collect();
    let commits: Vec<i64> = ahead.iter().map(|part| part.from.commit).collect();
    let seen: Vec<i64> = ahead.iter().map(|part| part.from.rows).collect();
    let until: Vec<i64> = ahead.iter().map(|part| part.until).collect();
    let rows = within(pool, build, async |reading| {
        let statement = reading.prepare_cached(include_str!("sql/read_commits_page.sql")).await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(reading.query(&statement, &[&partitions, &commits, &seen, &until, &limit]).await?)
    });
    let mut entries: Vec<Entry> = rows.await?.iter().map(entry_of).collect::<Result<_, _>>()?;
    entries.sort_unstable_by(|a, b| {
        (a.partition, a.commit, &a.key, a.sequence).cmp(&(b.partition, b.commit, &b.key, b.sequence))
    });
    Ok(entries)
}

fn entry_of(row: &Row) -> Result<Entry, ReadError> {
    let text = |column| row.try_get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    Ok(Entry {
        partition: Partition(row.try_get(0)?),
        commit: row.try_get(1)?,
        key: row.try_get(2)?,
        sequence: Sequence(row.try_get(3)?),
        event_id: text(4)?,
        event_type: text(5)?,
        effect: text(6)?,
        is_there: row.try_get::<_, Option<&str>>(6)?.is_some(),
    })
}

/// The rows before these in their keys, by their places in `of`.
pub async fn earlier(
    pool: &ReadPool,
    build: BuildId,
    of: &[(&str, Sequence)],
) -> Result<Vec<(usize, Earlier)>, ReadError> {
    let (keys, sequences): (Vec<&str>, Vec<i64>) = of.iter().map(|(key, sequence)| (*key, sequence.0)).unzip();
    let rows = within(pool, build, async |reading| {
        let statement = reading.prepare_cached(include_str!("sql/read_predecessors.sql")).await?;
        Ok(reading.query(&statement, &[&keys, &sequences]).await?)
    });
    let earlier = |row: &Row| {
        let (partition, commit) = (Partition(row.try_get(1)?), row.try_get(2)?);
        Ok((place_of(row)?, Earlier { partition, commit, sequence: Sequence(row.try_get(3)?) }))
    };
    rows.await?.iter().map(earlier).collect()
}

/// Of these rows, by their places, those that `build` had up to `until`.
pub async fn known(
    pool: &ReadPool,
    build: BuildId,
    rows: &[(&str, Sequence)],
    until: &HashMap<Partition, i64>,
) -> Result<HashSet<usize>, ReadError> {
    let (keys, sequences): (Vec<&str>, Vec<i64>) = rows.iter().map(|(key, sequence)| (*key, sequence.0)).unzip();
    let (partitions, commits): (Vec<i32>, Vec<i64>) =
        until.iter().map(|(partition, commit)| (partition.0, *commit)).unzip();
    let rows = within(pool, build, async |reading| {
        let statement = reading.prepare_cached(include_str!("sql/read_known_changes.sql")).await?;
        Ok(reading.query(&statement, &[&keys, &sequences, &partitions, &commits]).await?)
    });
    rows.await?.iter().map(place_of).collect()
}

fn place_of(row: &Row) -> Result<usize, ReadError> {
    let place: i64 = row.try_get(0)?;
    Ok(usize::try_from(place - 1).unwrap_or(usize::MAX))
}

/// What one key consumed after that number: sequence, event id, event type, effect.
pub async fn of_key(
    pool: &ReadPool,
    build: BuildId,
    (key, after): (&str, Sequence),
    limit: usize,
) -> Result<Vec<(Sequence, String, String, String)>, ReadError> {
    let rows = within(pool, build, async |reading| {
        let statement = reading.prepare_cached(include_str!("sql/read_key_changes.sql")).await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(reading.query(&statement, &[&key, &after.0, &limit]).await?)
    });
    let change = |row: &Row| Ok((Sequence(row.try_get(0)?), row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
    rows.await?.iter().map(change).collect()
}

/// Whether the read failed because the tables of the build are not there any more.
pub fn is_gone(error: &ReadError) -> bool {
    matches!(error, ReadError::Failed(cause) if cause.code() == Some(&SqlState::UNDEFINED_TABLE))
}

/// Reads in the schema of a build, by its indexes: what Postgres knows of the table may be old, and a plan that sorts all
/// that lies ahead would be paid for with every page.
async fn within<T>(
    pool: &ReadPool,
    build: BuildId,
    read: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    pool.within_deadline(async {
        let mut connection = pool.get().await?;
        let reading = connection.build_transaction().read_only(true).start().await?;
        let by_index = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off";
        let path = names::search_path(build);
        reading.batch_execute(&format!("set local search_path = {path}; {by_index}")).await?;
        let found = read(&reading).await?;
        reading.commit().await?;
        Ok(found)
    })
    .await
}
