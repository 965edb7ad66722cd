//! Postgres: definitions, their revisions, declared sources and what happened, as rows. The SQL stands in `sql/`. What is read
//! is written back only if nobody has written it since (`change`): so calls of people and the reconciler never undo each
//! other's words.

pub use deadpool_postgres::Pool;

pub(crate) use self::definitions::{Find, NewRow, Planned, Write, Written};
pub(crate) use self::leader::Leader;
pub(crate) use self::revisions::StoredRevision;
pub(crate) use self::sources::{Declared, Known, Leftover};

mod definitions;
mod leader;
mod outputs;
mod queries;
mod revisions;
mod rows;
mod sources;

/// The database does not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection could be had.
    #[error("the database cannot be asked: {0}")]
    Unavailable(String),
    /// A name is taken.
    #[error("{0} is there already")]
    Taken(String),
    /// It refused a statement.
    #[error("the database refused a statement: {0}")]
    Failed(#[source] tokio_postgres::Error),
    /// A row holds what this version does not know: another version has written it.
    #[error("a row of {table} holds `{value}`, which this version does not know")]
    Strange {
        /// Which table.
        table: &'static str,
        /// What it holds.
        value: String,
    },
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> StoreError {
        use tokio_postgres::error::SqlState;
        match error.as_db_error() {
            Some(told) if *told.code() == SqlState::UNIQUE_VIOLATION => {
                StoreError::Taken(told.constraint().unwrap_or_default().to_owned())
            }
            None if error.is_closed() => StoreError::Unavailable(error.to_string()),
            _ => StoreError::Failed(error),
        }
    }
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> StoreError {
        StoreError::Unavailable(error.to_string())
    }
}

/// Definitions and sources in Postgres.
#[derive(Clone)]
pub(crate) struct Store {
    pool: Pool,
}

impl Store {
    pub fn new(pool: Pool) -> Store {
        Store { pool }
    }
}
