//! What a session is and may do, for whoever looks for a fault. Changes nothing.

use std::time::{Duration, SystemTime};

use crate::config::DatabaseSettings;
use crate::domain::build::BuildId;
use crate::domain::units::{NextOffset, Partition};
use crate::failure::{Failure, Halt};
use crate::store::fit::Unfit;
use crate::store::progress::BuildSource;
use crate::store::sqlstate::{classify, describe};
use crate::store::{Connection, DbError, names, pool, wire};

/// Why there is no session.
#[derive(Debug)]
pub enum Closed {
    /// Nobody answers there, or not as he should.
    Away(String),
    /// The handshake of TLS fails, and what to do.
    Tls(String, &'static str),
    /// The login is refused, or there is no such database: what a view says that halts for it.
    Login(Halt),
    /// A pooler in between does not let us through.
    Pooler(Unfit),
}

/// Opens a session that sets nothing.
pub async fn open(settings: &DatabaseSettings) -> Result<Connection, Closed> {
    pool::connect_bare(settings).await.map_err(|error| match Unfit::from(error) {
        Unfit::Database(error) => closed(error),
        unfit => Closed::Pooler(unfit),
    })
}

fn closed(error: DbError) -> Closed {
    let words = describe(&error);
    match error.as_db_error() {
        None if wire::is_of_tls(&error) => {
            let fix = "set sslmode in database.url and database.tls.ca_file to what the server has";
            Closed::Tls(words, wire::advice(&error).unwrap_or(fix))
        }
        None => Closed::Away(words),
        Some(_) => match classify(error, None) {
            Failure::Halt(halt) => Closed::Login(halt),
            _ => Closed::Away(words),
        },
    }
}

/// Where each partition of a build stands.
pub async fn positions(client: &Connection, source: &BuildSource) -> Result<Vec<(Partition, NextOffset)>, DbError> {
    let statement = include_str!("sql/progress_positions.sql");
    let rows = client.query(statement, &[&source.view, &source.build.0, &source.topic]).await?;
    rows.iter().map(|row| Ok((Partition(row.try_get(0)?), NextOffset(row.try_get(1)?)))).collect()
}

/// A session, as Postgres sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Whose it is.
    pub role: String,
    /// In which database.
    pub database: String,
    /// Version of the server.
    pub version: String,
    /// Version and cipher of its TLS; `None`: it is not encrypted.
    pub tls: Option<(String, String)>,
    /// Whether it never leaves the machine.
    pub is_local: bool,
    /// Why it may only read, if so.
    pub read_only: Option<ReadOnly>,
}

/// Why a session may only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnly {
    /// The server is a standby.
    Standby,
    /// Its role was given that setting.
    OfRole,
    /// Its database was.
    OfDatabase,
    /// Its role was, in this database.
    OfRoleInDatabase,
    /// The server was, or the client has asked for it.
    OfServer,
}

/// As whom a session acts. One that has taken a role need not see more of itself.
pub async fn role(client: &Connection) -> Result<String, DbError> {
    client.query_one("select current_user::text", &[]).await?.try_get(0)
}

/// Looks at a session that has taken no role.
pub async fn session(client: &Connection) -> Result<Session, DbError> {
    let row = client.query_one(include_str!("sql/inspect_session.sql"), &[]).await?;
    let text = |index| row.try_get::<_, Option<String>>(index).map(Option::unwrap_or_default);
    let (is_standby, is_read_only, source) = (row.try_get(7)?, row.try_get(8)?, text(9)?);
    let read_only = match (is_standby, is_read_only, source.as_str()) {
        (true, ..) => Some(ReadOnly::Standby),
        (_, false, _) => None,
        (_, _, "user") => Some(ReadOnly::OfRole),
        (_, _, "database") => Some(ReadOnly::OfDatabase),
        (_, _, "database user") => Some(ReadOnly::OfRoleInDatabase),
        _ => Some(ReadOnly::OfServer),
    };
    let tls = if row.try_get(3)? { Some((text(4)?, text(5)?)) } else { None };
    let is_local = row.try_get(6)?;
    Ok(Session { role: text(0)?, database: text(1)?, version: text(2)?, tls, is_local, read_only })
}

/// How far Postgres' clock is ahead of ours, in milliseconds, and by how much that may be wrong.
pub async fn clock_ahead(client: &Connection) -> Result<(i64, i64), DbError> {
    let asked = millis(SystemTime::now());
    let theirs: i64 = client.query_one(include_str!("sql/inspect_clock.sql"), &[]).await?.try_get(0)?;
    let answered = millis(SystemTime::now());
    Ok((theirs - (asked + answered) / 2, (answered - asked) / 2 + 1))
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A build and the table of it that has one row for each key, if there is one.
pub type BuildTables<'a> = (BuildId, Option<&'a str>);

/// What the session's role lacks to serve these builds, for callers that log in with keys or not, with streams to manage or not,
/// with an audit log whose old entries it takes away itself or not; as grants: `usage on schema orders_1`, `insert on public.held_keys`.
pub async fn missing_grants(
    client: &Connection,
    builds: &[BuildTables<'_>],
    (with_keys, with_streams, forgets): (bool, bool, bool),
) -> Result<Vec<String>, DbError> {
    let schemas: Vec<String> = builds.iter().map(|(build, _)| names::schema(*build)).collect();
    let tables: Vec<Option<&str>> = builds.iter().map(|(_, table)| *table).collect();
    let mut missing = Vec::new();
    for row in client.query(include_str!("sql/missing_usage.sql"), &[&schemas]).await? {
        missing.push(format!("usage on schema {}", row.try_get::<_, String>(0)?));
    }
    let needed = include_str!("sql/missing_grants.sql");
    for row in client.query(needed, &[&schemas, &tables, &with_keys, &with_streams, &forgets]).await? {
        missing.push(format!("{} on {}", row.try_get::<_, String>(1)?, row.try_get::<_, String>(0)?));
    }
    Ok(missing)
}

/// What a rebuild needs beside grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// Who owns the build's tables.
    pub owner: String,
    /// Whether our role may act as that one.
    pub is_ours: bool,
    /// Whether our role may make schemas.
    pub may_create: bool,
}

/// Who owns a build; `None`: it has no tables.
pub async fn ownership(client: &Connection, build: BuildId) -> Result<Option<Ownership>, DbError> {
    let row = client.query_opt(include_str!("sql/rebuild_owner.sql"), &[&names::schema(build)]).await?;
    row.map(|row| Ok(Ownership { owner: row.try_get(0)?, is_ours: row.try_get(1)?, may_create: row.try_get(2)? }))
        .transpose()
}
