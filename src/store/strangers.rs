//! Late events that are none of their keys' events: which of them the tables of the build know all the same.

use std::collections::HashSet;

use tokio_postgres::Statement;

use crate::engine::plan::Stranger;
use crate::store::progress::BuildSource;
use crate::store::{Connection, DbError};

/// Asks about strangers on one connection.
pub struct StrangerStatements {
    known: Statement,
}

impl StrangerStatements {
    /// Prepares, on a connection whose search path begins with the build's schema.
    pub async fn prepare(client: &Connection) -> Result<Self, DbError> {
        Ok(StrangerStatements { known: client.prepare(include_str!("sql/known_strangers.sql")).await? })
    }

    /// The places of those that are copies of what was refused or replaced, or have a number that was skipped. Where the ledger
    /// `has_index`, also of those whose number it does not hold: it was not kept when that was consumed.
    pub async fn known(
        &self,
        client: &Connection,
        source: &BuildSource,
        strangers: &[Stranger<'_>],
        has_index: bool,
    ) -> Result<HashSet<usize>, DbError> {
        let keys: Vec<&str> = strangers.iter().map(|stranger| stranger.key).collect();
        let sequences: Vec<i64> = strangers.iter().map(|stranger| stranger.sequence.0).collect();
        let event_ids: Vec<&str> = strangers.iter().map(|stranger| &*stranger.event_id).collect();
        let payloads: Vec<Option<&[u8]>> = strangers.iter().map(|stranger| stranger.record.payload).collect();
        let asks: Vec<bool> = strangers.iter().map(|stranger| has_index && stranger.is_stored).collect();
        let (view, build) = (&source.view, &source.build.0);
        let rows = client.query(&self.known, &[view, build, &keys, &sequences, &event_ids, &payloads, &asks]).await?;
        // Places are counted from 1.
        rows.iter().map(|row| Ok(usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or(usize::MAX))).collect()
    }
}
