//! Brings the schema to the version this binary needs. Migrations only go forward.

use anyhow::{Context, Result, bail};

use crate::config::DatabaseSettings;
use crate::store::sqlstate::describe_chain;
use crate::store::{Connection, DbError, fit, pool};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Two processes migrate one after the other.
pub(super) const LOCK: i64 = 0x5374_7265_616d; // "Stream"

const CANNOT_USE: &str = "cannot use database.url";

/// A build that a process of the version before has made after the migration is brought up to date by the next one.
const AGAIN: &str = include_str!("../../migrations/V024__commits.sql");

/// Applies what is missing; returns the names of the migrations applied now.
pub async fn migrate(settings: &DatabaseSettings) -> Result<Vec<String>> {
    fit::check(settings).await.context(CANNOT_USE)?;
    let mut client = pool::connect_migrator(settings).await.context(CANNOT_USE)?;
    // Whole tables are read.
    client.batch_execute("set enable_seqscan = on").await?;
    client.execute("select pg_advisory_lock($1)", &[&LOCK]).await?;
    let report = embedded::migrations::runner().run_async(&mut client).await.map_err(in_words)?;
    client.batch_execute(AGAIN).await.context("a build cannot be brought up to date")?;
    client.execute("select pg_advisory_unlock($1)", &[&LOCK]).await?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// A connection to a database that can carry us and is of our version.
pub async fn open(settings: &DatabaseSettings) -> Result<Connection> {
    fit::check(settings).await.context(CANNOT_USE)?;
    let client = pool::connect_writer(settings, "public").await.context(CANNOT_USE)?;
    check(&client).await?;
    Ok(client)
}

/// How a schema that this binary cannot use differs from its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OtherSchema {
    /// There is none.
    #[error("the database has no StreamView tables; run `streamview migrate` first")]
    Missing,
    /// It is older or newer.
    #[error(
        "the database is at migration {found}, this binary needs {wanted}; run `streamview migrate` with the same version"
    )]
    Other {
        /// The last migration that was applied.
        found: i64,
        /// The last one that this binary knows.
        wanted: i64,
    },
}

/// Refuses a schema that is older or newer than this binary's.
async fn check(client: &Connection) -> Result<()> {
    match compare(client).await? {
        Ok(_) => Ok(()),
        Err(other) => bail!(other),
    }
}

/// The number of the last migration, if the schema is of this binary's version.
pub async fn compare(client: &Connection) -> Result<Result<i64, OtherSchema>, DbError> {
    let wanted = embedded::migrations::runner().get_migrations().iter().map(|m| m.version()).max().unwrap_or(0);
    let exists = "select to_regclass('refinery_schema_history') is not null";
    if !client.query_one(exists, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Err(OtherSchema::Missing));
    }
    let found = client.query_one("select max(version) from refinery_schema_history", &[]).await?;
    let (found, wanted) = (i64::from(found.try_get::<_, Option<i32>>(0)?.unwrap_or(0)), i64::from(wanted));
    Ok(if found == wanted { Ok(found) } else { Err(OtherSchema::Other { found, wanted }) })
}

/// A failed migration in the words of its cause: the migrator's own hold the driver's, which say nothing.
fn in_words(error: refinery::Error) -> anyhow::Error {
    match error.kind() {
        refinery::error::Kind::Connection(what, _) => {
            let what = what.clone();
            let cause = describe_chain(anyhow::Error::from(error).chain().skip(1));
            anyhow::anyhow!("a migration failed: {what}: {cause}")
        }
        _ => anyhow::Error::from(error).context("a migration failed"),
    }
}
