//! The builds of a view, as operators are shown them.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::Row;

use crate::domain::build::BuildId;
use crate::domain::meaning::StoredMeaning;
use crate::store::names;
use crate::store::read::{ReadError, ReadPool};

/// A build with its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownBuild {
    /// Which one.
    pub id: BuildId,
    /// Whether readers read it.
    pub active: bool,
    /// Whether it is being filled in bulk.
    pub loading: bool,
    /// What its rows mean.
    pub meaning: StoredMeaning,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it is kept, if readers have left it.
    pub kept_until: Option<Timestamp>,
    /// Records consumed.
    pub records: i64,
    /// About how many rows its tables have, the ledger left out.
    pub rows: i64,
    /// What its tables take, indexes included.
    pub bytes: i64,
}

/// All builds of a view, by number.
pub async fn of_view(pool: &ReadPool, view: &'static str) -> Result<Vec<ShownBuild>, ReadError> {
    let connection = pool.get().await?;
    let statement = connection.prepare_cached(include_str!("sql/builds_of_view.sql")).await?;
    let rows = connection.query(&statement, &[&view]).await?;
    let mut builds = rows.iter().map(|row| shown(view, row)).collect::<Result<Vec<_>, _>>()?;
    let schemas: Vec<String> = builds.iter().map(|build| names::schema(build.id)).collect();
    let statement = connection.prepare_cached(include_str!("sql/sizes_of_schemas.sql")).await?;
    let rows = connection.query(&statement, &[&schemas]).await?;
    let sizes = rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?))));
    let sizes = sizes.collect::<Result<HashMap<String, (i64, i64)>, ReadError>>()?;
    for (build, schema) in builds.iter_mut().zip(schemas) {
        (build.bytes, build.rows) = sizes.get(&schema).copied().unwrap_or_default();
    }
    Ok(builds)
}

fn shown(view: &'static str, row: &Row) -> Result<ShownBuild, ReadError> {
    Ok(ShownBuild {
        id: BuildId::new(view, row.try_get("build")?),
        active: row.try_get("active")?,
        loading: row.try_get("loading")?,
        meaning: super::meaning::meaning(row)?,
        created_at: row.try_get("created_at")?,
        kept_until: row.try_get("kept_until")?,
        records: row.try_get("records")?,
        rows: 0,
        bytes: 0,
    })
}
