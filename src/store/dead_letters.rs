//! The outbox of the dead-letter topic.

use crate::codec::dlq_headers::Unpublished;
use crate::domain::units::Millis;
use crate::store::{Connection, DbError};

/// Locks and gives the oldest unpublished dead letters; call inside a transaction.
pub async fn claim(client: &Connection, view: &str, limit: i64) -> Result<Vec<Unpublished>, DbError> {
    let rows = client.query(include_str!("sql/claim_dead_letters.sql"), &[&view, &limit]).await?;
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
