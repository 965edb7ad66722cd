//! The last resort for a partition that stands before what cannot be read, a batch of its log or a record whose schema
//! nobody knows: its records up to an offset are given up, by this and every later build. Moves the position and fences the owner, who takes over again behind the hole.
//!
//! Refused wherever the projector could go on by itself: nobody skips what can be applied.

use jiff::Timestamp;

use crate::domain::build::Build;
use crate::domain::units::{NextOffset, Offset, Partition};
use crate::store::blocked::SkippedRange;
use crate::store::pool::WriterPool;
use crate::store::read::ReadError;
use crate::store::sqlstate::describe;
use crate::store::{Connection, DbError};

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipTo {
    /// View.
    pub view: String,
    /// Build whose position is moved; the others honour the range when they come to it.
    pub build: Build,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: Partition,
    /// Where the partition stands, as the operator sees it.
    pub from: NextOffset,
    /// Where it goes on.
    pub to: NextOffset,
    /// Why, for those who ask later.
    pub reason: String,
    /// Who.
    pub actor: Option<String>,
    /// For whom, if who has logged in said so.
    pub on_behalf_of: Option<String>,
    /// Whether the actor has logged in: an earlier decision is nobody else's then.
    pub has_logged_in: bool,
    /// The same key is done once only.
    pub idempotency_key: Option<String>,
}

impl SkipTo {
    /// What is given up.
    pub fn range(&self) -> SkippedRange {
        SkippedRange { from: self.from.first_ahead(), to: self.to }
    }
}

/// A skipped range as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Row id.
    pub id: i64,
    /// What is given up.
    pub range: SkippedRange,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// What stopped the partition there; of an earlier decision not known any more once it has been stopped elsewhere.
    pub stopped_by: Option<String>,
    /// Whether this call decided it, or an earlier one with the same idempotency key.
    pub is_new: bool,
}

/// Why nothing was skipped.
#[derive(Debug, thiserror::Error)]
pub enum SkipError {
    /// The view has never consumed this partition.
    #[error("the view has no progress on partition {0}")]
    UnknownPartition(Partition),
    /// The partition stands elsewhere.
    #[error("the partition stands at offset {0}")]
    Moved(NextOffset),
    /// No record stops the partition at its position.
    #[error("no record stops the partition at offset {0}")]
    NotBlocked(NextOffset),
    /// The idempotency key belongs to another decision.
    #[error("the idempotency key was used for offsets {} to {} of partition {partition}", .range.from, .range.to)]
    KeyReused {
        /// Partition of that decision.
        partition: Partition,
        /// What it gave up.
        range: SkippedRange,
    },
    /// The idempotency key was used by somebody else.
    #[error("the idempotency key was used by somebody else")]
    KeyOfAnother,
    /// Postgres did not do it.
    #[error("{}", describe(.0))]
    Database(#[from] DbError),
    /// There is no connection for it: Postgres is away, or as many decisions as may are under way.
    #[error(transparent)]
    NoConnection(#[from] ReadError),
}

/// Decides, in one transaction. `to` has to be within the log: the caller has seen to that.
pub async fn skip(writers: &WriterPool, asked: &SkipTo) -> Result<Skipped, SkipError> {
    let client = writers.open().await?;
    client.batch_execute("begin").await?;
    // An error or a dropped future ends the session, and with it the transaction.
    let skipped = decide(&client, asked).await?;
    client.batch_execute("commit").await?;
    Ok(skipped)
}

async fn decide(client: &Connection, asked: &SkipTo) -> Result<Skipped, SkipError> {
    // The row's lock puts operators, takeovers and batches in a row.
    let row = client
        .query_opt(
            include_str!("sql/lock_position.sql"),
            &[&asked.view, &asked.build.0, &asked.topic, &asked.partition.0],
        )
        .await?;
    let Some(row) = row else { return Err(SkipError::UnknownPartition(asked.partition)) };
    let (next_offset, stopped_by): (NextOffset, Option<String>) = (NextOffset(row.try_get(0)?), row.try_get(1)?);
    if let Some(earlier) = earlier(client, asked).await? {
        return Ok(earlier);
    }
    if next_offset != asked.from {
        return Err(SkipError::Moved(next_offset));
    }
    if stopped_by.is_none() {
        return Err(SkipError::NotBlocked(next_offset));
    }
    let row = client
        .query_one(
            include_str!("sql/skip_to.sql"),
            &[
                &asked.view,
                &asked.build.0,
                &asked.topic,
                &asked.partition.0,
                &asked.from.0,
                &asked.to.0,
                &asked.reason,
                &asked.actor,
                &asked.idempotency_key,
                &asked.on_behalf_of,
            ],
        )
        .await?;
    Ok(Skipped { id: row.try_get(0)?, range: asked.range(), decided_at: row.try_get(1)?, stopped_by, is_new: true })
}

/// The decision that was made under the same idempotency key.
async fn earlier(client: &Connection, asked: &SkipTo) -> Result<Option<Skipped>, SkipError> {
    let Some(key) = &asked.idempotency_key else { return Ok(None) };
    let row = client.query_opt(include_str!("sql/skipped_with_key.sql"), &[&asked.view, key, &asked.build.0]).await?;
    let Some(row) = row else { return Ok(None) };
    let (topic, partition): (&str, Partition) = (row.try_get(1)?, Partition(row.try_get(2)?));
    let range = SkippedRange { from: Offset(row.try_get(3)?), to: NextOffset(row.try_get(4)?) };
    if (topic, partition, range) != (asked.topic.as_str(), asked.partition, asked.range()) {
        return Err(SkipError::KeyReused { partition, range });
    }
    let actor: Option<String> = row.try_get(7)?;
    if asked.has_logged_in && actor != asked.actor {
        return Err(SkipError::KeyOfAnother);
    }
    let (decided_at, stopped_by) = (row.try_get(5)?, row.try_get(6)?);
    Ok(Some(Skipped { id: row.try_get(0)?, range, decided_at, stopped_by, is_new: false }))
}
