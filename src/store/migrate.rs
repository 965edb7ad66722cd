//! Brings the schema to the version this binary needs. Migrations only go forward.

use anyhow::{Context, Result, bail};

use crate::config::DatabaseSettings;
use crate::store::{Connection, pool};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Two processes migrate one after the other.
const LOCK: i64 = 0x5374_7265_616d; // "Stream"

/// Applies what is missing; returns the names of the migrations applied now.
pub async fn migrate(settings: &DatabaseSettings) -> Result<Vec<String>> {
    let mut client = pool::connect_writer(settings, "public").await.context("cannot connect to database.url")?;
    client.execute("select pg_advisory_lock($1)", &[&LOCK]).await?;
    let report = embedded::migrations::runner().run_async(&mut client).await.context("a migration failed")?;
    client.execute("select pg_advisory_unlock($1)", &[&LOCK]).await?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// Refuses a schema that is older or newer than this binary's.
pub async fn check(client: &Connection) -> Result<()> {
    let wanted = embedded::migrations::runner().get_migrations().iter().map(|m| m.version()).max().unwrap_or(0);
    let exists: bool = client.query_one("select to_regclass('refinery_schema_history') is not null", &[]).await?.get(0);
    if !exists {
        bail!("the database has no StreamView tables; run `streamview migrate` first");
    }
    let found: Option<i32> = client.query_one("select max(version) from refinery_schema_history", &[]).await?.get(0);
    let found = i64::from(found.unwrap_or(0));
    if found != i64::from(wanted) {
        bail!(
            "the database is at migration {found}, this binary needs {wanted}; run `streamview migrate` with the same version"
        );
    }
    Ok(())
}
