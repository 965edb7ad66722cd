//! Whether a database, and the way to it, can carry us. Asked before anything else, since without it everything would seem
//! to work at first: a text that the encoding has not is refused years later, and a session that is shared with others keeps
//! nothing of what it sets.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use crate::config::DatabaseSettings;
use crate::store::sqlstate::describe;
use crate::store::{Connection, DbError, pool};

/// Looks at who serves two sessions, so many times: whoever pools connections may give the same one again for a while.
const LOOKS: usize = 5;

/// Why it cannot.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It cannot hold every text.
    #[error(
        "the database has the encoding {0}, and an event may hold text that it has not: it has to be UTF8 \
         (create database … encoding 'UTF8' template template0)"
    )]
    Encoding(String),
    /// Somebody in between gives our session away after each transaction.
    #[error(
        "a pooler in transaction mode is in front of Postgres (PgBouncer, pool_mode = transaction): settings, prepared \
         statements and locks of a session are lost there. Connect to Postgres directly, or let the pooler use \
         pool_mode = session for this database"
    )]
    SharedSession,
    /// Somebody in between refuses what the URL asks for.
    #[error("a pooler in front of Postgres refuses the connection: {0}; leave `options` out of database.url")]
    Refused(String),
    /// Somebody in between has too few connections for us, or is slow.
    #[error(
        "a second session got no answer within database.connect_timeout_ms while the first one was open: a pooler in front \
         of Postgres needs more server connections for this database (default_pool_size)"
    )]
    TooFew,
    /// Postgres did not tell.
    #[error("{}", describe(.0))]
    Database(#[source] DbError),
}

impl From<DbError> for Unfit {
    fn from(error: DbError) -> Self {
        // PgBouncer's words, under an SQLSTATE that it uses for everything.
        match error.as_db_error() {
            Some(db) if db.message().contains("unsupported startup parameter") => {
                Unfit::Refused(db.message().to_owned())
            }
            _ => Unfit::Database(error),
        }
    }
}

/// Refuses what can never work.
pub async fn check(settings: &DatabaseSettings) -> Result<(), Unfit> {
    let first = pool::connect_bare(settings).await?;
    check_encoding(&first).await?;
    check_sessions(&first, settings).await
}

/// Refuses a database that cannot hold every text.
pub async fn check_encoding(client: &Connection) -> Result<(), Unfit> {
    let encoding = value(client, "show server_encoding").await?;
    if encoding == "UTF8" { Ok(()) } else { Err(Unfit::Encoding(encoding)) }
}

/// Refuses a way to Postgres on which a session is none; `first` is one that was opened bare.
pub async fn check_sessions(first: &Connection, settings: &DatabaseSettings) -> Result<(), Unfit> {
    let second = pool::connect_bare(settings).await?;
    let patience = Duration::from_millis(settings.connect_timeout_ms);
    match tokio::time::timeout(patience, are_sessions(first, &second)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Unfit::SharedSession),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Unfit::TooFew),
    }
}

/// Whether two connections that are open at the same time are served by two processes, each by the same one all the time.
async fn are_sessions(first: &Connection, second: &Connection) -> Result<bool, DbError> {
    const WHO: &str = "select pg_backend_pid()";
    let (mut of_first, mut of_second) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..LOOKS {
        // Twice in a row: where connections are given in turn, it is another one then.
        of_first.insert(value(first, WHO).await?);
        of_first.insert(value(first, WHO).await?);
        of_second.insert(value(second, WHO).await?);
    }
    Ok(of_first.len() == 1 && of_second.len() == 1 && of_first.is_disjoint(&of_second))
}

/// The one value that a question is answered by, without preparing anything: that might go to another session already.
async fn value(client: &Connection, question: &str) -> Result<String, DbError> {
    let answer = client.simple_query(question).await?;
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(rows.collect())
}
