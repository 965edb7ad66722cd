//! How the rows of a view are stored: what a view brings beside its pure half.

use std::future::Future;

use crate::engine::view::{StoredKey, View, WriteSet};
use crate::store::fence::Writing;
use crate::store::{Connection, DbError};

/// A view whose rows are kept in Postgres.
pub trait Stored: View {
    /// Loads and writes its rows on one connection.
    type Rows: Rows<Self>;
}

/// How the rows that were meant compare with the rows that were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Every changed key was at its base sequence.
    All,
    /// Some key was not: somebody else wrote it. Roll back and load again.
    Stale,
}

/// The rows of one build of a view, on one connection whose search path begins with the build's schema.
pub trait Rows<V: View>: Send + Sync + Sized + 'static {
    /// Prepares the statements.
    fn prepare(view: &V, client: &Connection) -> impl Future<Output = Result<Self, DbError>> + Send;

    /// Loads the keys that exist.
    fn load(
        &self,
        client: &Connection,
        keys: &[&str],
    ) -> impl Future<Output = Result<Vec<StoredKey<V::State>>, DbError>> + Send;

    /// Writes a batch inside a fenced transaction. Statements are under way together and counted afterwards.
    fn write(
        &self,
        writing: Writing<'_>,
        set: &WriteSet<'_, '_, V>,
    ) -> impl Future<Output = Result<Written, DbError>> + Send;

    /// Of `event_ids`, those that are the latest of a key, with that key. Asked only after a violation of
    /// [`crate::engine::view::ViewSpec::event_id_constraint`]: a view without one has nothing to tell.
    fn holders_of(
        &self,
        client: &Connection,
        event_ids: &[&str],
    ) -> impl Future<Output = Result<Vec<(String, String)>, DbError>> + Send;
}
