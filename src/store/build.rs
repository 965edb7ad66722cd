//! Builds as a bulk load sees them: whether one is empty, and the mark that keeps everybody else out.

use crate::domain::build::BuildId;
use crate::domain::units::{NextOffset, Partition};
use crate::store::progress::BuildSource;
use crate::store::{Connection, DbError, ledger};

/// Locks the build for this connection; `false` if another one has it.
pub async fn lock(client: &Connection, source: &BuildSource) -> Result<bool, DbError> {
    let name = format!("streamview load {} {}", source.view, source.build);
    client.query_one("select pg_try_advisory_lock(hashtextextended($1, 0))", &[&name]).await?.try_get(0)
}

/// Whether a load of the build has begun and not ended.
pub async fn is_loading(client: &Connection, source: &BuildSource) -> Result<bool, DbError> {
    Ok(super::progress::loading_since(client, source).await?.is_some())
}

/// Records consumed into the build; 0 for one whose load was cut short, since that is thrown away.
pub async fn consumed(client: &Connection, source: &BuildSource) -> Result<i64, DbError> {
    let row = client.query_one(include_str!("sql/consumed.sql"), &[&source.view, &source.build.0]).await?;
    row.try_get(0)
}

/// Marks the build as being loaded.
pub async fn mark_loading(client: &Connection, build: BuildId) -> Result<(), DbError> {
    client.execute(include_str!("sql/begin_loading.sql"), &[&build.view, &build.build.0]).await.map(drop)
}

/// Whether anything was consumed into the build. No batch of it is under way from then on, until the transaction ends.
pub async fn lock_consumed(client: &Connection, build: BuildId) -> Result<bool, DbError> {
    client.query_one(include_str!("sql/lock_consumed.sql"), &[&build.view, &build.build.0]).await?.try_get(0)
}

/// Marks the build as being loaded, takes progress back to `begins`, forgets what came of it, empties the ledger, and runs
/// `script`; all or nothing.
pub async fn strip(
    client: &Connection,
    source: &BuildSource,
    begins: &[(Partition, NextOffset)],
    script: &str,
) -> Result<(), DbError> {
    let (partitions, lows): (Vec<i32>, Vec<i64>) =
        begins.iter().map(|(partition, begin)| (partition.0, begin.0)).unzip();
    client.batch_execute("begin").await?;
    let stripped = async {
        mark_loading(client, source.id()).await?;
        let reset: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&source.view, &source.build.0, &source.topic, &partitions, &lows];
        client.execute(include_str!("sql/reset_progress.sql"), &reset).await?;
        for table in ["held_keys", "parked_events", "dead_letters", "blocked_partitions"] {
            let forget = format!("delete from {table} where view = $1 and build = $2");
            client.execute(&forget, &[&source.view, &source.build.0]).await?;
        }
        client.execute(include_str!("sql/forget_outcomes.sql"), &[&source.view, &source.build.0]).await?;
        client.batch_execute(ledger::UNINDEX).await?;
        client.batch_execute(script).await
    };
    match stripped.await {
        Ok(()) => client.batch_execute("commit").await,
        Err(error) => {
            client.batch_execute("rollback").await?;
            Err(error)
        }
    }
}

/// The build is whole: everybody may project into it.
pub async fn set_free(client: &Connection, source: &BuildSource) -> Result<(), DbError> {
    client.execute(include_str!("sql/end_loading.sql"), &[&source.view, &source.build.0]).await.map(drop)
}
