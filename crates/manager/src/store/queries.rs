//! Queries of people who look, as instances tell each other of them.

use std::time::Duration;

use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;

use super::rows::{json, read, said};
use super::{Store, StoreError};
use crate::query::{Active, QueryInfo, TELL_EVERY};

const TABLE: &str = "stream_queries";
/// What has not been told for so long is gone.
const GONE: Duration = Duration::from_secs(3 * TELL_EVERY.as_secs());

impl Store {
    /// Enters a query, if no more than that many of other instances run: of its owner, and in all. Else how many do.
    pub async fn enter_query(&self, query: &QueryInfo, others: Active) -> Result<Option<Active>, StoreError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        // One after the other: else two would see the same last place.
        let lock = "select pg_advisory_xact_lock(hashtextextended('streamview stream queries', 0))";
        transaction.execute(lock, &[]).await?;
        let count = include_str!("sql/count_queries_elsewhere.sql");
        let row = transaction.query_one(count, &[&query.instance, &GONE.as_secs_f64(), &query.owner]).await?;
        let (of_owner, in_all): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let count = |count: i64| usize::try_from(count).unwrap_or_default();
        let run = Active { of_owner: count(of_owner), in_all: count(in_all) };
        if run.of_owner > others.of_owner || run.in_all > others.in_all {
            return Ok(Some(run));
        }
        tell(&*transaction, &query.instance, std::slice::from_ref(query)).await?;
        transaction.commit().await?;
        Ok(None)
    }

    /// Says which queries of an instance run, and which have ended.
    pub async fn tell_queries(
        &self,
        instance: &str,
        running: &[QueryInfo],
        ended: &[String],
    ) -> Result<(), StoreError> {
        let client = self.pool.get().await?;
        client.execute(include_str!("sql/forget_queries.sql"), &[&instance, &ended, &GONE.as_secs_f64()]).await?;
        match running {
            [] => Ok(()),
            running => tell(&**client, instance, running).await,
        }
    }

    /// The queries of other instances, the eldest first.
    pub async fn queries_elsewhere(&self, instance: &str) -> Result<Vec<QueryInfo>, StoreError> {
        let elsewhere = include_str!("sql/queries_elsewhere.sql");
        let rows = self.pool.get().await?.query(elsewhere, &[&instance, &GONE.as_secs_f64()]).await?;
        rows.iter()
            .map(|row| {
                let (rows, bytes): (i64, i64) = (row.try_get(8)?, row.try_get(9)?);
                Ok(QueryInfo {
                    id: row.try_get(0)?,
                    instance: row.try_get(1)?,
                    engine: said(TABLE, row.try_get(2)?)?,
                    owner: row.try_get(3)?,
                    sql_script: row.try_get(4)?,
                    started_at: row.try_get(5)?,
                    ends_at: row.try_get(6)?,
                    is_read: row.try_get(7)?,
                    rows: rows.unsigned_abs(),
                    bytes: bytes.unsigned_abs(),
                    left_out: read(TABLE, row.try_get(10)?)?,
                    tables: read(TABLE, row.try_get(11)?)?,
                })
            })
            .collect()
    }
}

async fn tell(client: &impl GenericClient, instance: &str, running: &[QueryInfo]) -> Result<(), StoreError> {
    let column = |of: fn(&QueryInfo) -> &str| running.iter().map(of).collect::<Vec<&str>>();
    let number = |of: fn(&QueryInfo) -> u64| {
        running.iter().map(|query| i64::try_from(of(query)).unwrap_or(i64::MAX)).collect::<Vec<i64>>()
    };
    let started_at: Vec<_> = running.iter().map(|query| query.started_at).collect();
    let ends_at: Vec<_> = running.iter().map(|query| query.ends_at).collect();
    let is_read: Vec<bool> = running.iter().map(|query| query.is_read).collect();
    let left_out: Vec<_> = running.iter().map(|query| json(&query.left_out)).collect();
    let tables: Vec<_> = running.iter().map(|query| json(&query.tables)).collect();
    let values: [&(dyn ToSql + Sync); 12] = [
        &instance,
        &column(|query| &query.id),
        &column(|query| query.engine.name()),
        &column(|query| &query.owner),
        &column(|query| &query.sql_script),
        &started_at,
        &ends_at,
        &is_read,
        &number(|query| query.rows),
        &number(|query| query.bytes),
        &left_out,
        &tables,
    ];
    client.execute(include_str!("sql/tell_queries.sql"), &values).await?;
    Ok(())
}
