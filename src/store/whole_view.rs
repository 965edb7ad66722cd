//! All rows of a view, as they were at one moment, page by page: for who keeps them in memory. Decides nothing.
//!
//! Which table and columns there are is what the view says ([`KeyedRows`]): constants of the code, of which the statements are put
//! together. One transaction reads them all, so that they are those of one moment, with a mark of it.

use std::time::Duration;

use deadpool_postgres::Transaction;
use tokio_postgres::IsolationLevel;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::domain::build::{Build, BuildId};
use crate::engine::view::{KeyTable, KeyedRows};
use crate::store::names;
use crate::store::pool::ReadConnection;
use crate::store::read::{ReadError, ReadPool};

/// Rows of a page. Each page is a statement of its own, so that `statement_timeout` bounds what is read at once and not all of it.
const PAGE: usize = 2_000;
/// So often it is looked which build readers read by now: each time they were led to another one at that moment.
const LOOKS: usize = 3;

/// A row: its key as text, and a JSON object of its columns. Numbers have the digits that Postgres has of them.
pub type JsonRow = (String, String);

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The view.
    pub view: &'static str,
    /// Its rows.
    pub rows: &'a KeyedRows,
    /// Columns of [`KeyedRows::joined`], the key left out or not.
    pub columns: &'a [&'static str],
    /// The mark of what is known already.
    pub seen: Option<&'a str>,
    /// The server ends the transaction of a reader that says nothing for so long: a process that is stopped or gone would keep its
    /// moment, and the lock of its table, for hours. Longer than the reader waits for whoever takes the rows.
    pub silent: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whole {
    /// All rows were handed over; by this mark it is told whether they are others by now.
    Read(String),
    /// They are those of the mark that is known.
    Same,
    /// Whoever takes them has had enough.
    Enough,
    /// No build of the view is active.
    NoBuild,
    /// What readers read is being made anew in place: it is not all there.
    Loading(BuildId),
    /// Readers were led to other builds all the time.
    Moving,
}

/// Reads them, in the order of their keys, and hands over each page; `take` says whether it wants more. No deadline but that of
/// each statement: whoever takes knows how long it may take.
pub async fn read<F: Future<Output = bool>>(
    pool: &ReadPool,
    wanted: Wanted<'_>,
    mut take: impl FnMut(Vec<JsonRow>) -> F,
) -> Result<Whole, ReadError> {
    let mut connection = pool.get().await?;
    for _ in 0..LOOKS {
        let Some(build) = active(&connection, wanted.view).await? else { return Ok(Whole::NoBuild) };
        if let Some(whole) = read_of(&mut connection, build, wanted, &mut take).await? {
            return Ok(whole);
        }
    }
    Ok(Whole::Moving)
}

async fn active(connection: &ReadConnection, view: &'static str) -> Result<Option<BuildId>, ReadError> {
    let statement = connection.prepare_cached(include_str!("sql/active_build.sql")).await?;
    let row = connection.query_opt(&statement, &[&view]).await?;
    row.map(|row| Ok(BuildId { view, build: Build(row.try_get(0)?) })).transpose()
}

/// The rows of that build; `None` if readers read another one by now.
async fn read_of<F: Future<Output = bool>>(
    connection: &mut ReadConnection,
    build: BuildId,
    wanted: Wanted<'_>,
    take: &mut impl FnMut(Vec<JsonRow>) -> F,
) -> Result<Option<Whole>, ReadError> {
    let begun = connection.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start();
    let reading = begun.await?;
    if let Err(error) = enter(&reading, build, wanted).await {
        return if is_gone(&error) { Ok(None) } else { Err(error.into()) };
    }
    let statement = reading.prepare_cached(include_str!("sql/mark_of_view.sql")).await?;
    let Some(row) = reading.query_opt(&statement, &[&build.view]).await? else { return Ok(Some(Whole::NoBuild)) };
    if Build(row.try_get("build")?) != build.build {
        return Ok(None);
    }
    if row.try_get("loading")? {
        return Ok(Some(Whole::Loading(build)));
    }
    let mark: String = row.try_get("mark")?;
    if wanted.seen == Some(mark.as_str()) {
        return Ok(Some(Whole::Same));
    }
    let is_all = hand_over(&reading, wanted, take).await?;
    reading.commit().await?;
    Ok(Some(if is_all { Whole::Read(mark) } else { Whole::Enough }))
}

/// The tables of the build are meant, and stay what they are. Locked before anything is read: a table that is emptied
/// behind the back of a moment that was chosen before would look empty in it.
async fn enter(reading: &Transaction<'_>, build: BuildId, wanted: Wanted<'_>) -> Result<(), tokio_postgres::Error> {
    let by_index = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off";
    let (path, schema, name) = (names::search_path(build), names::schema(build), wanted.rows.of_key.name);
    let silent = wanted.silent.as_millis();
    let statements = format!(
        "set local idle_in_transaction_session_timeout = {silent}; set local search_path = {path}; set local timezone = 'UTC'; {by_index}; lock table {schema}.{name} in access share mode"
    );
    reading.batch_execute(&statements).await
}

/// Whether the build is not there any more.
fn is_gone(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(code))
}

/// Every page; `false` if whoever takes them has had enough before.
async fn hand_over<F: Future<Output = bool>>(
    reading: &Transaction<'_>,
    wanted: Wanted<'_>,
    take: &mut impl FnMut(Vec<JsonRow>) -> F,
) -> Result<bool, ReadError> {
    let first = reading.prepare(&page(wanted, "")).await?;
    let further = reading.prepare(&page(wanted, "where this.{key} collate \"C\" > $1")).await?;
    let mut after: Option<String> = None;
    loop {
        let rows = match &after {
            None => reading.query(&first, &[]).await?,
            Some(after) => reading.query(&further, &[after as &(dyn ToSql + Sync)]).await?,
        };
        let count = rows.len();
        let page = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let page = page.collect::<Result<Vec<JsonRow>, tokio_postgres::Error>>()?;
        after = page.last().map(|(key, _)| key.clone());
        if !page.is_empty() && !take(page).await {
            return Ok(false);
        }
        if count < PAGE {
            return Ok(true);
        }
    }
}

fn page(wanted: Wanted<'_>, ahead: &str) -> String {
    let KeyTable { name, key, .. } = wanted.rows.of_key;
    let columns: Vec<String> = wanted.columns.iter().map(|column| format!("'{column}', this.{column}")).collect();
    let ahead = ahead.replace("{key}", key);
    format!(
        "select this.{key}, json_build_object({})::text from {name} this {ahead} order by this.{key} collate \"C\" limit {PAGE}",
        columns.join(", ")
    )
}
