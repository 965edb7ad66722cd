//! The texts that definitions had.

use tokio_postgres::Row;

use super::rows::{read, said};
use super::{Store, StoreError};
use crate::catalog::Source;
use crate::definition::Revision;
use crate::engines::{Changes, Select};

/// So many of the latest texts of a definition are kept, and those beside them that it runs, may go back to, or has failed with.
pub(crate) const MOST_REVISIONS: i32 = 500;

/// What a text was last planned to be deployed as.
#[derive(Debug, Clone)]
pub(crate) struct StoredRevision {
    pub select: Option<Select>,
    pub changes: Option<Changes>,
}

impl Store {
    /// What a text of a definition was planned as; `None` if there is no such text.
    pub async fn revision(&self, id: &str, revision: i32) -> Result<Option<StoredRevision>, StoreError> {
        let row = self.pool.get().await?.query_opt(include_str!("sql/revision.sql"), &[&id, &revision]).await?;
        let Some(row) = row else { return Ok(None) };
        let statement: Option<String> = row.try_get(0)?;
        let sources: Option<serde_json::Value> = row.try_get(1)?;
        let changes: Option<String> = row.try_get(2)?;
        let select = match (statement, sources) {
            (Some(sql), Some(sources)) => {
                Some(Select { sql, sources: read::<Vec<Source>>("stream_revisions", sources)? })
            }
            _ => None,
        };
        let changes = changes.map(|changes| said("stream_revisions", &changes)).transpose()?;
        Ok(Some(StoredRevision { select, changes }))
    }

    /// So many texts of a definition, the latest first: those before a revision, or these alone.
    pub async fn texts(
        &self,
        id: &str,
        before: Option<i32>,
        these: Option<&[i32]>,
        limit: i64,
    ) -> Result<Vec<Revision>, StoreError> {
        let list = include_str!("sql/list_revisions.sql");
        let rows = self.pool.get().await?.query(list, &[&id, &before, &these, &limit]).await?;
        rows.iter().map(text).collect()
    }
}

fn text(row: &Row) -> Result<Revision, StoreError> {
    Ok(Revision {
        revision: row.try_get(0)?,
        sql_script: row.try_get(1)?,
        author: row.try_get(2)?,
        created_at: row.try_get(3)?,
    })
}
