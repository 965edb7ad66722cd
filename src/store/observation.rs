//! What the observer reads for lag and gauges, through the read pool.

use jiff::Timestamp;

use crate::domain::held::HeldReason;
use crate::domain::meaning::StoredMeaning;
use crate::domain::units::{NextOffset, Partition};
use crate::store::meaning::meaning_of;
use crate::store::progress::BuildSource;
use crate::store::read::{ReadError, ReadPool};
use crate::store::types::SeenTime;

/// Where one partition of a build stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// First offset not applied yet.
    pub next_offset: NextOffset,
    /// Timestamp of the last applied record; `None` too where no calendar of ours has it.
    pub last_record_timestamp: Option<Timestamp>,
    /// Why it cannot go on without an operator, if so.
    pub blocked: Option<String>,
}

/// What the gauges show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Parked events.
    pub parked: i64,
    /// Held keys by reason, in the order of [`HeldReason::ALL`].
    pub held: [i64; HeldReason::ALL.len()],
    /// Held keys whose missing event is known not to be in the log.
    pub proven: i64,
    /// Dead letters not published yet.
    pub unpublished: i64,
    /// Conservation: consumed minus everything accounted for.
    pub difference: i64,
}

/// What is observed of a build: where its partitions stand, what the gauges show, and what its rows mean, if there is one.
pub type Observation = (Vec<Position>, Counts, Option<StoredMeaning>);

/// Reads all of it in one go.
pub async fn observe(pool: &ReadPool, source: &BuildSource) -> Result<Observation, ReadError> {
    let client = pool.get().await?;
    let positions = client.prepare_cached(include_str!("sql/progress_positions.sql")).await?;
    let rows = client.query(&positions, &[&source.view, &source.build.0, &source.topic]).await?;
    let positions = rows
        .iter()
        .map(|row| {
            Ok(Position {
                partition: Partition(row.try_get(0)?),
                next_offset: NextOffset(row.try_get(1)?),
                last_record_timestamp: row.try_get::<_, Option<SeenTime>>(2)?.and_then(|time| time.0),
                blocked: row.try_get(3)?,
            })
        })
        .collect::<Result<_, ReadError>>()?;
    let counts = client.prepare_cached(include_str!("sql/sample_counts.sql")).await?;
    let row = client.query_one(&counts, &[&source.view, &source.build.0]).await?;
    let counts = Counts {
        parked: row.try_get(0)?,
        held: [row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?],
        proven: row.try_get(5)?,
        unpublished: row.try_get(6)?,
        difference: row.try_get(7)?,
    };
    Ok((positions, counts, meaning_of(&client, source.id()).await?))
}
