//! The ledger of a build: one row for every sequence number that a key has consumed. The engine's own table, alike in every
//! build of every view; no view writes it.
//!
//! Each row says with which commit it came: the partition in whose turn that was, and a number that grows by one with each
//! commit of that partition. Who follows the ledger remembers one number per partition and misses nothing, which positions
//! in the log could not promise: an event that was parked is committed later, under its old offset.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use tokio_postgres::Statement;

use crate::domain::ledger::LedgerRow;
use crate::domain::units::{Partition, Sequence};
use crate::store::copy::CopyRows;
use crate::store::fence::Writing;
use crate::store::types::SqlTimestamp;
use crate::store::{Connection, DbError};

/// Makes the table, without its index, and that of its commits, in the schema that is first in the search path.
pub const CREATE: &str = include_str!("sql/create_ledger.sql");
/// Its index: at once, or when the rows are there.
pub const INDEX: &str = include_str!("sql/index_ledger.sql");
/// Empties both tables and takes the index off; may run twice.
pub const UNINDEX: &str = include_str!("sql/unindex_ledger.sql");

/// A commit of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Commit {
    /// The partition.
    pub partition: Partition,
    /// Its number: one more than that of the partition's commit before.
    pub number: i64,
}

/// Writes ledger rows on one connection.
pub struct LedgerWriter {
    copy: Statement,
    note: Statement,
}

impl LedgerWriter {
    /// Prepares, on a connection whose search path begins with the build's schema.
    pub async fn prepare(client: &Connection) -> Result<Self, DbError> {
        let copy = client.prepare(include_str!("sql/copy_ledger.sql")).await?;
        Ok(LedgerWriter { copy, note: client.prepare(include_str!("sql/note_commit.sql")).await? })
    }

    /// Writes `rows`, each with its commit, by one `COPY`, inside a fenced transaction. A row that is there already
    /// breaks the primary key.
    pub async fn write(&self, writing: Writing<'_>, rows: &[(Commit, &LedgerRow<'_>)]) -> Result<(), DbError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut copy = CopyRows::start(writing.client(), &self.copy, 11).await?;
        for (commit, row) in rows {
            let LedgerRow { key, sequence, event_id, event_type, occurred_at, origin, effect, payload } = row;
            copy.row()
                .await?
                .put(*key)
                .put(sequence.0)
                .put(&**event_id)
                .put(&**event_type)
                .put(SqlTimestamp(*occurred_at))
                .put(origin.partition.0)
                .put(origin.offset.0)
                .put(effect.as_str())
                .put(payload.as_deref())
                .put(commit.partition.0)
                .put(commit.number);
        }
        copy.finish().await
    }

    /// Notes for who follows the ledger which rows came with which commit: `rows` are those of whole commits, by key and number
    /// within each.
    pub async fn note(&self, writing: Writing<'_>, rows: &[(Commit, &LedgerRow<'_>)]) -> Result<(), DbError> {
        let mut by_commit: BTreeMap<Commit, (Vec<&str>, Vec<i64>)> = BTreeMap::new();
        for (commit, row) in rows {
            let (keys, sequences) = by_commit.entry(*commit).or_default();
            keys.push(row.key);
            sequences.push(row.sequence.0);
        }
        let notes = by_commit.iter().map(async |(commit, (keys, sequences))| {
            writing.client().execute(&self.note, &[&commit.partition.0, &commit.number, keys, sequences]).await
        });
        try_join_all(notes).await.map(drop)
    }
}

/// With which commit each number of a key came.
pub async fn commits_of(client: &Connection, key: &str) -> Result<BTreeMap<Sequence, Commit>, DbError> {
    let rows = client.query(include_str!("sql/commits_of_key.sql"), &[&key]).await?;
    rows.iter()
        .map(|row| {
            let commit = Commit { partition: Partition(row.try_get(1)?), number: row.try_get(2)? };
            Ok((Sequence(row.try_get(0)?), commit))
        })
        .collect()
}

/// Takes these numbers of a key out.
pub async fn delete(writing: Writing<'_>, key: &str, sequences: &[Sequence]) -> Result<(), DbError> {
    let sequences: Vec<i64> = sequences.iter().map(|sequence| sequence.0).collect();
    writing.client().execute(include_str!("sql/delete_from_ledger.sql"), &[&key, &sequences]).await.map(drop)
}
