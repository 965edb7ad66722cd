//! Partitions that cannot go on without an operator, and what operators have skipped. The decision itself is made in
//! [`crate::repair::skip_to`].

use crate::store::progress::BuildSource;
use crate::store::{Connection, DbError};

/// Notes that the owner under `owner_epoch` cannot go on; nothing happens if it is not the owner any more.
pub async fn block(
    client: &Connection,
    source: &BuildSource,
    (partition, owner_epoch): (i32, i64),
    (code, detail): (&str, &str),
) -> Result<(), DbError> {
    let statement = include_str!("sql/block_partition.sql");
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&source.view, &source.build, &source.topic, &partition, &owner_epoch, &code, &detail];
    client.execute(statement, &parameters).await?;
    Ok(())
}

/// How many partitions of the build stand where `code` stopped them.
pub async fn count(client: &Connection, source: &BuildSource, code: &str) -> Result<i64, DbError> {
    let statement = include_str!("sql/blocked_count.sql");
    client.query_one(statement, &[&source.view, &source.build, &source.topic, &code]).await?.try_get(0)
}

/// What operators have skipped of a partition: first offset and the first one after, in order.
pub async fn skipped(client: &Connection, source: &BuildSource, partition: i32) -> Result<Vec<(i64, i64)>, DbError> {
    let rows = client.query(include_str!("sql/skipped_ranges.sql"), &[&source.view, &source.topic, &partition]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Moves the partition past an unreadable batch that begins at `offset`, if an operator has skipped that; gives the new
/// position.
pub async fn step_over(
    client: &Connection,
    source: &BuildSource,
    (partition, owner_epoch): (i32, i64),
    offset: i64,
) -> Result<Option<i64>, DbError> {
    let statement = include_str!("sql/step_over.sql");
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&source.view, &source.build, &source.topic, &partition, &offset, &owner_epoch];
    client.query_opt(statement, &parameters).await?.map(|row| row.try_get(0)).transpose()
}
