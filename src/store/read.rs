//! What the API reads of the control tables, and what a failed read means to a caller.

use crate::config::DatabaseSettings;
use crate::domain::build::Build;
use crate::domain::counters::Counters;
use crate::domain::units::{Epoch, NextOffset, Partition};
use crate::domain::word::UnknownWord;
use crate::store::sqlstate::describe;
use crate::store::types::BoxedError;
use crate::store::wire;

use std::error::Error;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

/// The pool that every read goes through.
#[derive(Clone)]
pub struct ReadPool {
    pool: deadpool_postgres::Pool,
    deadline: Duration,
}

impl ReadPool {
    /// `settings` are those that the pool was made by.
    pub fn new(pool: deadpool_postgres::Pool, settings: &DatabaseSettings) -> Self {
        ReadPool { pool, deadline: deadline(settings) }
    }

    /// Runs a read, giving up when the database has gone silent.
    pub async fn within_deadline<T>(&self, read: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
        within(self.deadline, read).await
    }
}

impl Deref for ReadPool {
    type Target = deadpool_postgres::Pool;

    fn deref(&self) -> &Self::Target {
        &self.pool
    }
}

/// Reads the last sequence of each key that a view holds; keys without a row are left out.
pub type SequencesOf = fn(ReadPool, Vec<String>) -> BoxFuture<'static, Result<Vec<(String, i64)>, ReadError>>;

/// The longest that one read may take: what it may wait for a connection, and as much for its statement, which ends sooner by
/// itself (`statement_timeout`); or what a new connection may take, where that is longer. This is for a server that no longer
/// answers at all.
pub fn deadline(settings: &DatabaseSettings) -> Duration {
    Duration::from_millis(settings.connect_timeout_ms.max(2 * settings.read_timeout_ms + 1_000))
}

/// Why a read gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Every connection of the pool was in use for too long.
    #[error("every read connection was in use for too long")]
    Busy,
    /// No connection to Postgres, or it broke.
    #[error("the database does not answer")]
    Unavailable(#[source] Option<Arc<dyn Error + Send + Sync>>),
    /// Postgres takes no changes now, as a standby or a server whose disk was full does.
    #[error("the database takes no changes: {}", describe(.0))]
    ReadOnly(#[source] Arc<tokio_postgres::Error>),
    /// The statement ran into `statement_timeout`, or waited for a lock for too long.
    #[error("the statement took too long")]
    Timeout(#[source] Arc<tokio_postgres::Error>),
    /// Postgres took the statement back for somebody else: a standby for what it had to replay, or one of a deadlock. Worth another
    /// attempt at once.
    #[error("the statement was given up for another one: {}", describe(.0))]
    Displaced(#[source] Arc<tokio_postgres::Error>),
    /// Anything else: a defect here or a schema that does not fit.
    #[error("the statement failed: {}", describe(.0))]
    Failed(#[source] Arc<tokio_postgres::Error>),
    /// A value is not in the form that it should have: a defect, too.
    #[error("a value could not be read: {0}")]
    Unreadable(Arc<dyn Error + Send + Sync>),
}

impl ReadError {
    /// A value that came is not what it should be.
    pub fn unreadable(error: BoxedError) -> Self {
        ReadError::Unreadable(Arc::from(error))
    }
}

impl From<tokio_postgres::Error> for ReadError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            if let Some(word) = error.source().and_then(|source| source.downcast_ref::<UnknownWord>()) {
                return ReadError::Unreadable(Arc::new(word.clone()));
            }
            return match error.source() {
                _ if wire::is_of_tls(&error) => ReadError::Unavailable(Some(Arc::new(error))),
                // No SQLSTATE and no I/O error: a value of an unexpected type, say.
                Some(source) if !error.is_closed() && !source.is::<std::io::Error>() => {
                    ReadError::Failed(Arc::new(error))
                }
                _ => ReadError::Unavailable(Some(Arc::new(error))),
            };
        };
        if [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE].contains(state) {
            return ReadError::Timeout(Arc::new(error));
        }
        match &state.code()[..2] {
            "25" if *state == SqlState::READ_ONLY_SQL_TRANSACTION => ReadError::ReadOnly(Arc::new(error)),
            "40" => ReadError::Displaced(Arc::new(error)),
            "08" | "53" | "57" => ReadError::Unavailable(Some(Arc::new(error))),
            _ => ReadError::Failed(Arc::new(error)),
        }
    }
}

impl From<deadpool_postgres::PoolError> for ReadError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        use deadpool_postgres::{PoolError, TimeoutType};
        match error {
            PoolError::Timeout(TimeoutType::Wait) => ReadError::Busy,
            PoolError::Backend(error) => match ReadError::from(error) {
                // A connection that cannot be made is never the fault of a statement.
                ReadError::Failed(error) => ReadError::Unavailable(Some(error)),
                other => other,
            },
            PoolError::Timeout(TimeoutType::Create) => {
                let late: BoxedError = "no connection was open within database.connect_timeout_ms".into();
                ReadError::Unavailable(Some(Arc::from(late)))
            }
            other => ReadError::Unavailable(Some(Arc::new(other))),
        }
    }
}

/// Runs a read for no longer than that.
pub async fn within<T>(deadline: Duration, read: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
    tokio::time::timeout(deadline, read).await.unwrap_or(Err(ReadError::Unavailable(None)))
}

/// Runs a read, and once more if it was displaced: a standby cancels whoever is in the way of what it replays
/// (`max_standby_streaming_delay`), and is through with that when it has said so.
pub async fn twice<T>(read: impl AsyncFn() -> Result<T, ReadError>) -> Result<T, ReadError> {
    match read().await {
        Err(ReadError::Displaced(_)) => read().await,
        first => first,
    }
}

/// Asks the database for a sign of life.
pub async fn ping(pool: &ReadPool) -> Result<(), ReadError> {
    pool.get().await?.simple_query("select 1").await?;
    Ok(())
}

/// How far one partition of a build is, with the counters of everything it ever consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProgress {
    /// Source topic.
    pub topic: String,
    /// Partition number.
    pub partition: Partition,
    /// First offset not applied yet.
    pub next_offset: NextOffset,
    /// The instance that owns it, if it said so.
    pub owner: Option<String>,
    /// Fencing number of that owner.
    pub owner_epoch: Epoch,
    /// Records consumed, and what became of them.
    pub counters: Counters,
}

/// Progress of every partition of a build, in order.
pub async fn progress(pool: &ReadPool, view: &str, build: Build) -> Result<Vec<PartitionProgress>, ReadError> {
    let connection = pool.get().await?;
    let statement = connection.prepare_cached(include_str!("sql/conservation.sql")).await?;
    let rows = connection.query(&statement, &[&view, &build.0]).await?;
    rows.iter().map(progress_of).collect()
}

fn progress_of(row: &Row) -> Result<PartitionProgress, ReadError> {
    Ok(PartitionProgress {
        topic: row.try_get("topic")?,
        partition: Partition(row.try_get("partition")?),
        next_offset: NextOffset(row.try_get("next_offset")?),
        owner: row.try_get("owner")?,
        owner_epoch: Epoch(row.try_get("owner_epoch")?),
        counters: Counters {
            consumed: row.try_get("consumed")?,
            applied: row.try_get("applied")?,
            duplicate: row.try_get("duplicate")?,
            late: row.try_get("late")?,
            conflict: row.try_get("conflict")?,
            parked: row.try_get("parked")?,
            dead_lettered: row.try_get("dead_lettered")?,
        },
    })
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::store::pool::{WriterPool, read_pool};

    #[test]
    fn reads_and_decisions_may_take_as_long_as_is_set() {
        let mut settings = Config::defaults().database;
        // By their connection and by their statement.
        for (set, read, decision) in
            [(10, 5_000, 1_020), (2_000, 5_000, 5_000), (2_001, 5_002, 5_002), (600_000, 1_201_000, 1_201_000)]
        {
            (settings.read_timeout_ms, settings.decision_timeout_ms) = (set, set);
            assert_eq!(read_pool(&settings).unwrap().deadline.as_millis(), read, "{set}");
            assert_eq!(WriterPool::new(&settings).longest().as_millis(), decision, "{set}");
        }
        (settings.read_timeout_ms, settings.connect_timeout_ms) = (2_000, 5_001);
        assert_eq!(read_pool(&settings).unwrap().deadline.as_millis(), 5_001, "a connection may take longer");
    }
}
