//! What the topics of definitions hold: the columns that their texts were planned to give.

use super::rows::{read, said};
use super::{Store, StoreError};
use crate::catalog::Column;
use crate::engines::Changes;

impl Store {
    /// The columns of a definition's output topic, and whether its rows replace each other: as the revision gives them that
    /// runs, or is to run first. `None` if the topic is of no definition; no columns if nobody has planned it yet.
    pub async fn output(&self, topic: &str) -> Result<Option<(Vec<Column>, Option<Changes>)>, StoreError> {
        let table = "stream_revisions";
        let found = self.pool.get().await?.query_opt(include_str!("sql/output.sql"), &[&topic]).await?;
        let Some(row) = found else { return Ok(None) };
        let columns: Option<serde_json::Value> = row.try_get(1)?;
        let changes: Option<&str> = row.try_get(2)?;
        Ok(Some((
            columns.map(|columns| read(table, columns)).transpose()?.unwrap_or_default(),
            changes.map(|changes| said(table, changes)).transpose()?,
        )))
    }
}
