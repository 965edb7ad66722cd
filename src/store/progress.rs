//! Progress rows: who owns a partition, how far it is, and the fence that keeps everybody else out.

use tokio_postgres::Row;

use crate::domain::build::{Build, BuildId};
use crate::domain::counters::Counters;
use crate::domain::identity::Anchor;
use crate::domain::meaning::Meaning;
use crate::domain::units::{Epoch, Micros, Millis, NextOffset, Offset, Partition};
use crate::store::meaning::as_json;
use crate::store::types::SqlTimestamp;
use crate::store::{Connection, DbError};

/// A build and the topic that it is made from: what its progress rows are found by.
#[derive(Debug, Clone)]
pub struct BuildSource {
    /// View name.
    pub view: &'static str,
    /// Build number.
    pub build: Build,
    /// Topic.
    pub topic: String,
}

impl BuildSource {
    /// The build.
    pub fn id(&self) -> BuildId {
        BuildId { view: self.view, build: self.build }
    }
}

/// A partition and the number under which it is owned: what the fence compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The partition.
    pub partition: Partition,
    /// The owner's fencing number.
    pub epoch: Epoch,
}

/// What an owner gets.
#[derive(Debug, Clone)]
pub struct Acquired {
    /// Partition.
    pub partition: Partition,
    /// Where to go on.
    pub next_offset: NextOffset,
    /// Our fencing number.
    pub owner_epoch: Epoch,
    /// The topic id under which the progress was made.
    pub topic_id: Option<String>,
    /// What was consumed last.
    pub anchor: Option<Anchor>,
    /// How often something was decided so far.
    pub decisions: i64,
    /// The number of the partition's last commit.
    pub commits: i64,
}

impl Acquired {
    /// What the fence compares.
    pub fn ownership(&self) -> Ownership {
        Ownership { partition: self.partition, epoch: self.owner_epoch }
    }
}

/// The active build of a view, or `None` if no migration created one.
pub async fn active_build(client: &Connection, view: &str) -> Result<Option<Build>, DbError> {
    let row = client.query_opt(include_str!("sql/active_build.sql"), &[&view]).await?;
    row.map(|row| row.try_get(0).map(Build)).transpose()
}

/// Since when the build is being loaded in bulk, if it is.
pub async fn loading_since(client: &Connection, source: &BuildSource) -> Result<Option<String>, DbError> {
    let row = client.query_opt(include_str!("sql/loading_since.sql"), &[&source.view, &source.build.0]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Becomes the owner of a partition, who goes by `meaning`; `start` is used if there is no progress yet. `None`: the build is
/// bound to another topic, or means something else.
pub async fn acquire(
    client: &Connection,
    (source, meaning): (&BuildSource, &Meaning),
    partition: Partition,
    start: NextOffset,
    (topic_id, owner): (Option<&str>, &str),
) -> Result<Option<Acquired>, DbError> {
    let (version, rules) = (meaning.projection_version, as_json(&meaning.rules));
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 9] =
        [&source.view, &source.build.0, &source.topic, &topic_id, &partition.0, &start.0, &owner, &version, &rules];
    let row = client.query_opt(include_str!("sql/acquire_partition.sql"), &parameters).await?;
    row.map(|row| acquired(&row, partition)).transpose()
}

fn acquired(row: &Row, partition: Partition) -> Result<Acquired, DbError> {
    let anchor_offset: Option<i64> = row.try_get(3)?;
    let crc: Option<i64> = row.try_get(4)?;
    let timestamp_ms = row.try_get::<_, Option<i64>>(5)?.map(Millis);
    let anchor =
        anchor_offset.zip(crc).map(|(offset, crc)| Anchor { offset: Offset(offset), crc: crc as u32, timestamp_ms });
    Ok(Acquired {
        partition,
        next_offset: NextOffset(row.try_get(0)?),
        owner_epoch: Epoch(row.try_get(1)?),
        topic_id: row.try_get(2)?,
        anchor,
        decisions: row.try_get(6)?,
        commits: row.try_get(7)?,
    })
}

/// A progress row as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Partition.
    pub partition: Partition,
    /// First offset not applied yet.
    pub next_offset: NextOffset,
    /// Fencing number of the owner.
    pub owner_epoch: Epoch,
    /// How often something was decided so far.
    pub decisions: i64,
    /// The number of the partition's last commit.
    pub commits: i64,
}

/// Partitions as stored: tells the outcome of a commit whose answer was lost.
pub async fn read(client: &Connection, source: &BuildSource, partitions: &[Partition]) -> Result<Vec<Stored>, DbError> {
    let partitions: Vec<i32> = partitions.iter().map(|partition| partition.0).collect();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&source.view, &source.build.0, &source.topic, &partitions];
    let rows = client.query(include_str!("sql/read_progress.sql"), &parameters).await?;
    rows.iter()
        .map(|row| {
            Ok(Stored {
                partition: Partition(row.try_get(0)?),
                next_offset: NextOffset(row.try_get(1)?),
                owner_epoch: Epoch(row.try_get(2)?),
                decisions: row.try_get(3)?,
                commits: row.try_get(4)?,
            })
        })
        .collect()
}

/// How one partition moves with a batch.
#[derive(Debug, Clone)]
pub struct Advance {
    /// Partition.
    pub partition: Partition,
    /// Where it must stand now.
    pub expected_offset: NextOffset,
    /// Our fencing number.
    pub owner_epoch: Epoch,
    /// Where it will stand.
    pub next_offset: NextOffset,
    /// Last record of the batch.
    pub anchor: Option<Anchor>,
    /// What became of its records.
    pub counters: Counters,
    /// The decisions that the batch was folded with, as a number.
    pub decisions: i64,
    /// The number of this commit: one more than the partition's last.
    pub commit: i64,
    /// Records of the batch whose time is none that can be stored and shown: for the metrics.
    pub odd_times: u64,
}

/// The columns of [`Advance`] rows, as Postgres arrays.
#[derive(Debug, Default)]
pub struct AdvanceColumns {
    partition: Vec<i32>,
    longs: [Vec<i64>; 11],
    anchors: [Vec<Option<i64>>; 3],
    record_time: Vec<Option<SqlTimestamp>>,
}

/// Prepares the fence.
pub async fn prepare_advance(client: &Connection) -> Result<tokio_postgres::Statement, DbError> {
    client.prepare(include_str!("sql/advance_progress.sql")).await
}

impl AdvanceColumns {
    /// Turns rows into columns.
    pub fn of(rows: &[Advance]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            let c = row.counters;
            columns.partition.push(row.partition.0);
            let longs =
                [row.expected_offset.0, row.owner_epoch.0, row.next_offset.0, c.consumed, c.applied, c.duplicate];
            let longs = longs.into_iter().chain([c.late, c.conflict, c.parked, c.dead_lettered, row.commit]);
            for (column, value) in columns.longs.iter_mut().zip(longs) {
                column.push(value);
            }
            let timestamp_ms = row.anchor.and_then(|anchor| anchor.timestamp_ms);
            columns.anchors[0].push(row.anchor.map(|anchor| anchor.offset.0));
            columns.anchors[1].push(row.anchor.map(|anchor| anchor.crc.into()));
            columns.anchors[2].push(timestamp_ms.map(|millis| millis.0));
            columns.record_time.push(timestamp_ms.and_then(Micros::from_millis).map(SqlTimestamp));
        }
        columns
    }

    /// Runs the prepared `advance_progress.sql`; gives the partitions that moved, each with how often something was
    /// decided so far.
    pub async fn run(
        &self,
        client: &Connection,
        statement: &tokio_postgres::Statement,
        source: &BuildSource,
    ) -> Result<Vec<(Partition, i64)>, DbError> {
        let [expected, epoch, next, consumed, applied, duplicate, late, conflict, parked, dead, commit] = &self.longs;
        let [anchor_offset, anchor_crc, anchor_timestamp] = &self.anchors;
        let rows = client
            .query(
                statement,
                &[
                    &source.view,
                    &source.build.0,
                    &source.topic,
                    &self.partition,
                    expected,
                    epoch,
                    next,
                    anchor_offset,
                    anchor_crc,
                    anchor_timestamp,
                    &self.record_time,
                    consumed,
                    applied,
                    duplicate,
                    late,
                    conflict,
                    parked,
                    dead,
                    commit,
                ],
            )
            .await?;
        rows.iter().map(|row| Ok((Partition(row.try_get(0)?), row.try_get(1)?))).collect()
    }
}
