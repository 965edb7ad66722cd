//! Postgres: definitions, their revisions, declared sources and what happened, as rows. The SQL stands in `sql/`.

pub use deadpool_postgres::Pool;

/// The database does not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection could be had.
    #[error("the database cannot be asked: {0}")]
    Unavailable(String),
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
