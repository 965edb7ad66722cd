//! Declared sources, and names that are ours.

use jiff::Timestamp;
use tokio_postgres::types::ToSql;

use super::rows::{json, read, said, word};
use super::{Store, StoreError};
use crate::catalog::{Declarer, Source};
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

impl Store {
    pub async fn sources(&self) -> Result<Vec<Source>, StoreError> {
        let rows = self.pool.get().await?.query(include_str!("sql/list_sources.sql"), &[]).await?;
        let table = "stream_sources";
        rows.iter()
            .map(|row| {
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
            })
            .collect()
    }

    /// `false` if it is declared by somebody else, and whoever calls may not change that.
    pub async fn put_source(&self, source: &Source, by: Declarer<'_>) -> Result<bool, StoreError> {
        let (format, columns) = (word(source.format), json(&source.columns));
        let (event_time, table) = (source.event_time.as_ref().map(json), source.table.as_ref().map(json));
        let put = include_str!("sql/put_source.sql");
        let client = self.pool.get().await?;
        let (name, topic, operates) = (&source.name, &source.topic, &by.is_operator);
        let parts: [&(dyn ToSql + Sync); 8] = [name, topic, &format, &columns, &event_time, &by.name, operates, &table];
        let written = client.execute(put, &parts).await?;
        Ok(written > 0)
    }

    /// `false` if there is none of that name, or it is declared by somebody else, and whoever calls may not change that.
    pub async fn delete_source(&self, name: &str, by: Declarer<'_>) -> Result<bool, StoreError> {
        let delete = include_str!("sql/delete_source.sql");
        Ok(self.pool.get().await?.execute(delete, &[&name, &by.name, &by.is_operator]).await? > 0)
    }

    /// Who declared a source; `None` if there is none of that name.
    pub async fn declarer(&self, name: &str) -> Result<Option<String>, StoreError> {
        let found = self.pool.get().await?.query_opt(include_str!("sql/declarer.sql"), &[&name]).await?;
        Ok(found.map(|row| row.try_get(0)).transpose()?)
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
