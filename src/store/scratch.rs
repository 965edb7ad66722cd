//! What a verification reads and writes: the keys of a build, the ledger of some of them, and tables of its own for the rows
//! that they should have. Decides nothing.
//!
//! The tables are temporary ones of the session, made by the view's own script, and nobody else sees them. The view's rows
//! are written there by the code that writes them everywhere, so that Postgres can compare like with like.

use std::collections::BTreeMap;

use tokio_postgres::{Row, Statement};

use crate::domain::build::BuildId;
use crate::domain::ledger::{Effect, LedgerRow, Origin};
use crate::domain::units::{Offset, Partition, Sequence};
use crate::engine::view::{BuildScripts, KeyTable, KeyedRows, WriteSet};
use crate::store::fence::Writing;
use crate::store::ledger::{Commit, LedgerWriter};
use crate::store::rows::{Rows, Stored};
use crate::store::types::{SqlTimestamp, Word};
use crate::store::{Connection, DbError, ledger, names};

/// Where the temporary tables of a session are.
pub const SCHEMA: &str = "pg_temp";
/// The search path of who means them.
pub const SEARCH_PATH: &str = "pg_temp,public";

/// The search path of who means the tables of the build although there are temporary ones of the same names: where these
/// are not in the path, Postgres looks for them first.
pub fn search_path_of(build: BuildId) -> String {
    format!("{},{SCHEMA}", names::search_path(build))
}

/// Temporary tables of a view.
pub struct Scratch<V: Stored> {
    rows: V::Rows,
    ledger: LedgerWriter,
    truncate: String,
}

impl<V: Stored> Scratch<V> {
    /// Makes the tables, on a connection that serves nothing else. Without the view's own indexes and constraints: what
    /// breaks one is to be found, not to be stumbled over.
    pub async fn create(
        view: &V,
        client: &Connection,
        (scripts, keyed): (&BuildScripts, &KeyedRows),
    ) -> Result<Self, DbError> {
        let KeyTable { name, key, .. } = keyed.of_key;
        let mut indexes = format!("create index on {name} ({key})");
        indexes.push_str("; create index on ledger (key, sequence)");
        let mut truncate = format!("truncate {name}, ledger");
        for table in keyed.details {
            indexes.push_str(&format!("; create index on {} ({}, {})", table.name, table.key, table.number));
            truncate.push_str(&format!(", {}", table.name));
        }
        client.batch_execute(&format!("set search_path = {SEARCH_PATH}")).await?;
        for script in [scripts.create, ledger::CREATE, &indexes] {
            client.batch_execute(script).await?;
        }
        let (rows, ledger) = (V::Rows::prepare(view, client).await?, LedgerWriter::prepare(client).await?);
        Ok(Scratch { rows, ledger, truncate })
    }

    /// Writes these rows, and no others are there afterwards. Inside a transaction.
    pub async fn write(
        &self,
        client: &Connection,
        set: &WriteSet<'_, '_, V>,
        ledger: &[LedgerRow<'_>],
    ) -> Result<(), DbError> {
        client.batch_execute(&format!("set local search_path = {SEARCH_PATH}; {}", self.truncate)).await?;
        let writing = Writing::to_scratch(client);
        self.rows.write(writing, set).await?;
        // Of no commit.
        let nobodys = Commit { partition: Partition(0), number: 0 };
        let ledger: Vec<_> = ledger.iter().map(|row| (nobodys, row)).collect();
        self.ledger.write(writing, &ledger).await
    }
}

/// Reads the keys of a build, and their ledger.
pub struct Keys {
    search_path: String,
    stored: Statement,
    sampled: Statement,
    counted: Statement,
    in_ledger: Statement,
    sizes: Statement,
    ledger: Statement,
}

/// Keys that follow each other, each with how many rows it has in the ledger.
pub type KeyPage = BTreeMap<String, i64>;

/// How much a key has in the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeySize {
    /// Rows.
    pub rows: i64,
    /// Bytes of their payloads.
    pub bytes: i64,
}

impl Keys {
    /// Prepares. Names are the view's constants.
    pub async fn prepare(client: &Connection, build: BuildId, of_key: &KeyTable) -> Result<Self, DbError> {
        let (search_path, KeyTable { name, key, .. }) = (search_path_of(build), of_key);
        client.batch_execute(&format!("set search_path = {search_path}")).await?;
        let collated = format!("{key} collate \"C\"");
        let stored = format!("select {key} from {name} where {collated} > $1 order by {collated} limit $2");
        // Any order will do that is another one each time.
        let sampled = format!("select {key} from {name} order by hashtextextended({key}, $1) limit $2");
        Ok(Keys {
            search_path,
            stored: client.prepare(&stored).await?,
            sampled: client.prepare(&sampled).await?,
            counted: client.prepare(&format!("select count(*) from {name}")).await?,
            in_ledger: client.prepare(include_str!("sql/ledger_keys.sql")).await?,
            sizes: client.prepare(include_str!("sql/ledger_sizes.sql")).await?,
            ledger: client.prepare(include_str!("sql/ledger_of_keys.sql")).await?,
        })
    }

    /// From here on in the transaction the build's tables are meant.
    async fn enter(&self, client: &Connection) -> Result<(), DbError> {
        client.batch_execute(&format!("set local search_path = {}", self.search_path)).await
    }

    /// Up to `limit` keys after `after`, of those that have a row or a ledger; and whether there may be more.
    pub async fn page(&self, client: &Connection, after: &str, limit: i64) -> Result<(KeyPage, bool), DbError> {
        self.enter(client).await?;
        let stored = client.query(&self.stored, &[&after, &limit]).await?;
        let in_ledger = client.query(&self.in_ledger, &[&after, &limit]).await?;
        let mut page = KeyPage::new();
        let mut end: Option<String> = None;
        for rows in [&stored, &in_ledger] {
            // Beyond the end of an answer that was full the other one says only half.
            if let Some(last) = rows.last().filter(|_| rows.len() as i64 >= limit) {
                let last: String = last.try_get(0)?;
                end = Some(end.map_or(last.clone(), |end| end.min(last)));
            }
        }
        for row in &stored {
            page.entry(row.try_get(0)?).or_default();
        }
        for row in &in_ledger {
            page.insert(row.try_get(0)?, row.try_get(1)?);
        }
        if let Some(end) = &end {
            page.retain(|key, _| key <= end);
        }
        Ok((page, end.is_some()))
    }

    /// Some of the keys that have a row, others for another `seed`, in order.
    pub async fn sample(&self, client: &Connection, seed: i64, count: i64) -> Result<Vec<String>, DbError> {
        self.enter(client).await?;
        let rows = client.query(&self.sampled, &[&seed, &count]).await?;
        let mut keys = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// How many keys have a row.
    pub async fn count(&self, client: &Connection) -> Result<u64, DbError> {
        self.enter(client).await?;
        let count: i64 = client.query_one(&self.counted, &[]).await?.try_get(0)?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// How much those of these keys have that are in the ledger.
    pub async fn sizes(&self, client: &Connection, keys: &[&str]) -> Result<BTreeMap<String, KeySize>, DbError> {
        self.enter(client).await?;
        let rows = client.query(&self.sizes, &[&keys]).await?;
        let size = |row: &Row| Ok(KeySize { rows: row.try_get(1)?, bytes: row.try_get(2)? });
        rows.iter().map(|row| Ok((row.try_get(0)?, size(row)?))).collect()
    }

    /// The ledger of these keys.
    pub async fn ledger(&self, client: &Connection, keys: &[&str]) -> Result<LedgerPage, DbError> {
        self.enter(client).await?;
        Ok(LedgerPage { rows: client.query(&self.ledger, &[&keys]).await? })
    }
}

/// Ledger rows as they came.
pub struct LedgerPage {
    rows: Vec<Row>,
}

impl LedgerPage {
    /// The rows, by key and number.
    pub fn rows(&self) -> Result<Vec<LedgerRow<'_>>, DbError> {
        self.rows.iter().map(ledger_row).collect()
    }
}

fn ledger_row(row: &Row) -> Result<LedgerRow<'_>, DbError> {
    Ok(LedgerRow {
        key: row.try_get(0)?,
        sequence: Sequence(row.try_get(1)?),
        event_id: row.try_get::<_, &str>(2)?.into(),
        event_type: row.try_get::<_, &str>(3)?.into(),
        occurred_at: row.try_get::<_, SqlTimestamp>(4)?.0,
        origin: Origin { partition: Partition(row.try_get(5)?), offset: Offset(row.try_get(6)?) },
        effect: row.try_get::<_, Word<Effect>>(7)?.0,
        payload: row.try_get::<_, Option<&str>>(8)?.map(Into::into),
    })
}
