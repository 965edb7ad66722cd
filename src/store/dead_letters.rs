//! The outbox of the dead-letter topic, and how far that topic is known.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::codec::dlq_headers::Unpublished;
use crate::domain::units::Millis;
use crate::store::{Connection, DbError};

/// Makes this transaction the view's only relay; `false` if another one is.
pub async fn lock_relay(client: &Connection, view: &str) -> Result<bool, DbError> {
    client.query_one(include_str!("sql/lock_relay.sql"), &[&lock_of(view)]).await?.try_get(0)
}

/// Waits until no relay of the view is at work, and lets none begin until the end of the transaction: what is published by
/// then is marked by then.
pub async fn hold_relay(client: &Connection, view: &str) -> Result<(), DbError> {
    client.execute(include_str!("sql/hold_relay.sql"), &[&lock_of(view)]).await.map(drop)
}

fn lock_of(view: &str) -> String {
    format!("streamview relay {view}")
}

/// Locks and gives the oldest unpublished dead letters, up to `most` of them and no more once they come to so many `bytes`:
/// the first however large. Call inside a transaction.
pub async fn claim(client: &Connection, view: &str, most: i64, bytes: i64) -> Result<Vec<Unpublished>, DbError> {
    let rows = client.query(include_str!("sql/claim_dead_letters.sql"), &[&view, &most, &bytes]).await?;
    rows.iter()
        .map(|row| {
            Ok(Unpublished {
                id: row.try_get(0)?,
                topic: row.try_get(1)?,
                partition: row.try_get(2)?,
                offset: row.try_get(3)?,
                timestamp_ms: row.try_get::<_, Option<i64>>(4)?.map(Millis),
                reason: row.try_get(5)?,
                error: row.try_get(6)?,
                key: row.try_get(7)?,
                payload: row.try_get(8)?,
                headers: row.try_get(9)?,
                created_at: row.try_get(10)?,
            })
        })
        .collect()
}

/// Marks dead letters as published; call in the transaction that claimed them.
pub async fn mark_published(client: &Connection, ids: &[i64]) -> Result<u64, DbError> {
    client.execute(include_str!("sql/mark_published.sql"), &[&ids]).await
}

/// A letter as the DLQ topic tells of it.
#[derive(Debug)]
pub struct Seen {
    topic: String,
    partition: i32,
    offset: i64,
    at: Timestamp,
}

impl Seen {
    /// Position of its record, and when that was refused. `None` for what cannot be a letter of ours: Postgres does not hold
    /// such text or such a time.
    pub fn new(topic: String, partition: i32, offset: i64, at: Timestamp) -> Option<Seen> {
        let is_storable = !topic.contains('\0') && at >= Timestamp::UNIX_EPOCH;
        is_storable.then_some(Seen { topic, partition, offset, at })
    }
}

/// Marks those of these letters that are not marked yet; call in the transaction that has the lock.
pub async fn mark_seen(client: &Connection, view: &str, seen: &[Seen]) -> Result<u64, DbError> {
    if seen.is_empty() {
        return Ok(0);
    }
    let topics: Vec<&str> = seen.iter().map(|seen| seen.topic.as_str()).collect();
    let partitions: Vec<i32> = seen.iter().map(|seen| seen.partition).collect();
    let offsets: Vec<i64> = seen.iter().map(|seen| seen.offset).collect();
    let times: Vec<Timestamp> = seen.iter().map(|seen| seen.at).collect();
    client.execute(include_str!("sql/mark_seen.sql"), &[&view, &topics, &partitions, &offsets, &times]).await
}

/// For each partition of a DLQ topic the offset below which every letter is marked.
pub async fn confirmed(client: &Connection, view: &str, topic: &str) -> Result<BTreeMap<i32, i64>, DbError> {
    let rows = client.query(include_str!("sql/read_relay_positions.sql"), &[&view, &topic]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Sets these; call in the transaction that marks what stands below.
pub async fn confirm(
    client: &Connection,
    view: &str,
    topic: &str,
    positions: &BTreeMap<i32, i64>,
) -> Result<u64, DbError> {
    let partitions: Vec<i32> = positions.keys().copied().collect();
    let offsets: Vec<i64> = positions.values().copied().collect();
    client.execute(include_str!("sql/put_relay_positions.sql"), &[&view, &topic, &partitions, &offsets]).await
}
