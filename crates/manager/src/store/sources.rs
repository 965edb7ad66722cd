//! Declared sources, and names that are ours.

use deadpool_postgres::{Object, Transaction};
use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row};

use super::rows::{json, read, said, word};
use super::{Store, StoreError};
use crate::catalog::{Declaration, Declarer, ExpectedSource, Source};
use crate::names::Names;

/// The names of a definition that is there.
#[derive(Debug)]
pub(crate) struct Known {
    pub topic: String,
    pub sink: String,
    pub names: Names,
}

/// A topic that outlived its definition.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub topic: String,
    pub name: String,
    pub deleted_by: String,
    pub deleted_at: Timestamp,
}

/// What came of a change of a declaration.
#[derive(Debug)]
pub(crate) enum Declared {
    /// It is so, or was so before.
    Done(Declaration),
    /// Not what whoever calls has read.
    Other(Option<Declaration>),
    /// Declared by somebody else, and not theirs to change.
    NotTheirs(Declaration),
    /// There is none of that name.
    Missing,
}

impl Store {
    pub async fn sources(&self) -> Result<Vec<Source>, StoreError> {
        let rows = self.pool.get().await?.query(include_str!("sql/list_sources.sql"), &[]).await?;
        rows.iter().map(source).collect()
    }

    /// What is declared under a name.
    pub async fn declaration(&self, name: &str) -> Result<Option<Declaration>, StoreError> {
        declaration(&**self.pool.get().await?, name).await
    }

    /// Declares a source. What is declared so already is not written again.
    pub async fn put_source(
        &self,
        source: &Source,
        by: Declarer<'_>,
        expected: ExpectedSource,
    ) -> Result<Declared, StoreError> {
        let mut client = self.pool.get().await?;
        let transaction = one_at_a_time(&mut client).await?;
        let now = declaration(&*transaction, &source.name).await?;
        match now {
            Some(now) if !by.may_change(&now) => return Ok(Declared::NotTheirs(now)),
            now if !expected.is(now.as_ref()) => return Ok(Declared::Other(now)),
            Some(now) if now.source == *source => return Ok(Declared::Done(now)),
            _ => {}
        }
        let (format, columns) = (word(source.format), json(&source.columns));
        let (event_time, table) = (source.event_time.as_ref().map(json), source.table.as_ref().map(json));
        let (name, topic) = (&source.name, &source.topic);
        let put = include_str!("sql/put_source.sql");
        let parts: [&(dyn ToSql + Sync); 7] = [name, topic, &format, &columns, &event_time, &by.name, &table];
        transaction.execute(put, &parts).await?;
        let written = declaration(&*transaction, name).await?;
        transaction.commit().await?;
        Ok(written.map_or(Declared::Missing, Declared::Done))
    }

    /// Takes a declaration back; gives what it was.
    pub async fn delete_source(
        &self,
        name: &str,
        by: Declarer<'_>,
        expected: ExpectedSource,
    ) -> Result<Declared, StoreError> {
        let mut client = self.pool.get().await?;
        let transaction = one_at_a_time(&mut client).await?;
        let Some(now) = declaration(&*transaction, name).await? else { return Ok(Declared::Missing) };
        if !by.may_change(&now) {
            return Ok(Declared::NotTheirs(now));
        }
        if !expected.is(Some(&now)) {
            return Ok(Declared::Other(Some(now)));
        }
        transaction.execute(include_str!("sql/delete_source.sql"), &[&name]).await?;
        transaction.commit().await?;
        Ok(Declared::Done(now))
    }

    /// The names of all definitions.
    pub async fn known(&self) -> Result<Vec<Known>, StoreError> {
        let rows = self.pool.get().await?.query(include_str!("sql/known_names.sql"), &[]).await?;
        rows.iter()
            .map(|row| {
                let (id, first_name): (String, String) = (row.try_get(2)?, row.try_get(3)?);
                let names = Names::of(&id, &first_name);
                Ok(Known { topic: row.try_get(0)?, sink: row.try_get(1)?, names })
            })
            .collect()
    }

    pub async fn leftovers(&self) -> Result<Vec<Leftover>, StoreError> {
        let rows = self.pool.get().await?.query(include_str!("sql/leftovers.sql"), &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(Leftover {
                    topic: row.try_get(0)?,
                    name: row.try_get(1)?,
                    deleted_by: row.try_get(2)?,
                    deleted_at: row.try_get(3)?,
                })
            })
            .collect()
    }

    pub async fn forget_leftover(&self, topic: &str) -> Result<(), StoreError> {
        self.pool.get().await?.execute(include_str!("sql/forget_leftover.sql"), &[&topic]).await?;
        Ok(())
    }
}

/// Changes of declarations one after the other: what is looked at before one is so until it is written.
async fn one_at_a_time(client: &mut Object) -> Result<Transaction<'_>, StoreError> {
    let transaction = client.transaction().await?;
    let lock = "select pg_advisory_xact_lock(hashtextextended('streamview stream sources', 0))";
    transaction.execute(lock, &[]).await?;
    Ok(transaction)
}

async fn declaration(client: &impl GenericClient, name: &str) -> Result<Option<Declaration>, StoreError> {
    let found = client.query_opt(include_str!("sql/declaration.sql"), &[&name]).await?;
    found
        .map(|row| {
            Ok(Declaration {
                source: source(&row)?,
                declared_by: row.try_get(6)?,
                version: row.try_get(7)?,
                created_at: row.try_get(8)?,
                updated_at: row.try_get(9)?,
            })
        })
        .transpose()
}

/// The first columns of a row of `list_sources.sql` or `declaration.sql`.
fn source(row: &Row) -> Result<Source, StoreError> {
    let table = "stream_sources";
    let event_time: Option<serde_json::Value> = row.try_get(4)?;
    let of_keys: Option<serde_json::Value> = row.try_get(5)?;
    Ok(Source {
        name: row.try_get(0)?,
        topic: row.try_get(1)?,
        format: said(table, row.try_get(2)?)?,
        columns: read(table, row.try_get(3)?)?,
        event_time: event_time.map(|time| read(table, time)).transpose()?,
        table: of_keys.map(|keys| read(table, keys)).transpose()?,
    })
}
