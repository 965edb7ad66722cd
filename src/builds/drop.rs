//! Drops a build with all that it left in the control tables. Decisions and skipped ranges are the view's, and stay.

use super::{BuildError, end, lock};
use crate::domain::build::BuildId;
use crate::store::{Connection, names};

/// Everything that names a build, what refers to something else first.
const ROWS: [&str; 7] = [
    include_str!("sql/drop_progress.sql"),
    include_str!("sql/drop_held.sql"),
    include_str!("sql/drop_parked.sql"),
    include_str!("sql/drop_letters.sql"),
    include_str!("sql/drop_outcomes.sql"),
    include_str!("sql/drop_blocked.sql"),
    include_str!("sql/drop_build.sql"),
];

/// Drops a build, in one transaction; not the active one. Whoever still projects into it is fenced by that, since its
/// progress is gone.
pub async fn drop(client: &Connection, build: BuildId) -> Result<(), BuildError> {
    if !build.is_well_named() {
        return Err(BuildError::BadName(build));
    }
    client.batch_execute("begin").await?;
    let gone = remove(client, build).await;
    end(client, gone).await
}

async fn remove(client: &Connection, build: BuildId) -> Result<(), BuildError> {
    match lock(client, build).await? {
        None => return Err(BuildError::Unknown(build)),
        Some(standing) if standing.active => return Err(BuildError::Active(build)),
        Some(_) => {}
    }
    remove_all(client, build).await
}

/// Removes whatever is there of it, inside a transaction that has the lock.
pub(super) async fn remove_all(client: &Connection, build: BuildId) -> Result<(), BuildError> {
    // The progress rows first: a batch that holds them ends before its tables go.
    for statement in ROWS {
        client.execute(statement, &[&build.view, &build.build.0]).await?;
    }
    let schema = names::schema(build);
    // By name and without `cascade`: what somebody else has put there, or built upon it, stops us.
    let tables = client.query(include_str!("sql/tables_of_schema.sql"), &[&schema]).await?;
    let names: Vec<String> = tables.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    if !names.is_empty() {
        client.batch_execute(&format!("drop table {}", names.join(", "))).await?;
    }
    client.batch_execute(&format!("drop schema if exists {schema}")).await?;
    Ok(())
}
