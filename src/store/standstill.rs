//! A view at a standstill: nothing of any of its builds is committed but by us, until the end of our transaction, and every
//! batch that was folded before is folded again, with nothing remembered.

use crate::store::fence::Writing;
use crate::store::{Connection, DbError};

/// Locks the rows of a view's builds, until the end of the transaction: none is made, switched to or dropped meanwhile.
pub async fn lock_builds(client: &Connection, view: &str) -> Result<(), DbError> {
    client.execute(include_str!("sql/lock_view_builds.sql"), &[&view]).await.map(drop)
}

/// Waits until no batch of the view is under way, and lets none begin, until the end of the transaction.
pub async fn lock(client: &Connection, view: &str) -> Result<(), DbError> {
    lock_builds(client, view).await?;
    lock_progress(client, view).await
}

/// The same for who has the lock of [`lock_builds`] already.
pub async fn lock_progress(client: &Connection, view: &str) -> Result<(), DbError> {
    client.execute(include_str!("sql/lock_view_progress.sql"), &[&view]).await.map(drop)
}

/// A transaction at a standstill.
pub struct Standstill<'c> {
    client: &'c Connection,
}

impl<'c> Standstill<'c> {
    /// Brings the view to it, inside a transaction. What is read after this is what is true until its end.
    pub async fn begin(client: &'c Connection, view: &str) -> Result<Self, DbError> {
        lock(client, view).await?;
        client.execute(include_str!("sql/count_decision.sql"), &[&view]).await?;
        Ok(Standstill { client })
    }

    /// The connection.
    pub fn client(&self) -> &'c Connection {
        self.client
    }

    /// The right to write rows: owners wait for us, and load what they find afterwards.
    pub fn writing(&self) -> Writing<'c> {
        Writing::at_standstill(self.client)
    }
}
