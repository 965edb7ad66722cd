//! Partitions that cannot go on without an operator, and what operators have skipped. The decision itself is made in
//! [`crate::repair::skip_to`].

use crate::domain::units::{NextOffset, Offset, Partition};
use crate::store::progress::{BuildSource, Ownership};
use crate::store::{Connection, DbError};

/// Offsets of a partition that no build applies, because an operator has given them up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedRange {
    /// The first one.
    pub from: Offset,
    /// The position behind the last one.
    pub to: NextOffset,
}

impl SkippedRange {
    /// Whether the record at `offset` is given up.
    pub fn covers(&self, offset: Offset) -> bool {
        self.from <= offset && self.to.is_past(offset)
    }
}

/// Notes that the owner cannot go on; nothing happens if it is not the owner any more.
pub async fn block(
    client: &Connection,
    source: &BuildSource,
    owner: Ownership,
    (code, detail): (&str, &str),
) -> Result<(), DbError> {
    let statement = include_str!("sql/block_partition.sql");
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&source.view, &source.build.0, &source.topic, &owner.partition.0, &owner.epoch.0, &code, &detail];
    client.execute(statement, &parameters).await?;
    Ok(())
}

/// How many partitions of the build stand where `code` stopped them.
pub async fn count(client: &Connection, source: &BuildSource, code: &str) -> Result<i64, DbError> {
    let statement = include_str!("sql/blocked_count.sql");
    client.query_one(statement, &[&source.view, &source.build.0, &source.topic, &code]).await?.try_get(0)
}

/// What operators have skipped of a partition, in order.
pub async fn skipped(
    client: &Connection,
    source: &BuildSource,
    partition: Partition,
) -> Result<Vec<SkippedRange>, DbError> {
    let statement = include_str!("sql/skipped_ranges.sql");
    let rows = client.query(statement, &[&source.view, &source.topic, &partition.0]).await?;
    let range =
        |row: &tokio_postgres::Row| Ok(SkippedRange { from: Offset(row.try_get(0)?), to: NextOffset(row.try_get(1)?) });
    rows.iter().map(range).collect()
}

/// Moves the partition past an unreadable batch that begins at `offset`, if an operator has skipped that; gives the new
/// position.
pub async fn step_over(
    client: &Connection,
    source: &BuildSource,
    owner: Ownership,
    offset: Offset,
) -> Result<Option<NextOffset>, DbError> {
    let statement = include_str!("sql/step_over.sql");
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&source.view, &source.build.0, &source.topic, &owner.partition.0, &offset.0, &owner.epoch.0];
    client.query_opt(statement, &parameters).await?.map(|row| row.try_get(0).map(NextOffset)).transpose()
}
