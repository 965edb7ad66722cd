//! Makes a build: its schema, its tables, and its place in the control tables. Readers do not see it yet.

use super::{BuildError, end, lock};
use crate::domain::build::BuildId;
use crate::domain::meaning::Meaning;
use crate::engine::view::BuildScripts;
use crate::store::{Connection, ledger, meaning, names, roles};

/// Makes an empty build with all its indexes, not active, in one transaction. Its rows will mean what `meaning` says, and it
/// has yet to fold with every decision of the view. `client` may create schemas.
pub async fn create(
    client: &Connection,
    build: BuildId,
    scripts: &BuildScripts,
    meaning: &Meaning,
) -> Result<(), BuildError> {
    if !build.is_well_named() {
        return Err(BuildError::BadName(build));
    }
    client.batch_execute("begin").await?;
    let made = make(client, build, scripts, meaning).await;
    end(client, made).await
}

async fn make(
    client: &Connection,
    build: BuildId,
    scripts: &BuildScripts,
    meaning: &Meaning,
) -> Result<(), BuildError> {
    if lock(client, build).await?.is_some() {
        return Err(BuildError::Exists(build));
    }
    // Who makes a view's first builds side by side finds out here.
    let (version, rules) = (meaning.projection_version, meaning::as_json(&meaning.rules));
    let insert = include_str!("sql/insert_build.sql");
    if client.execute(insert, &[&build.view, &build.build.0, &version, &rules]).await? == 0 {
        return Err(BuildError::Exists(build));
    }
    client.execute(include_str!("sql/await_decisions.sql"), &[&build.view, &build.build.0]).await?;
    let (schema, search_path) = (names::schema(build), names::search_path(build));
    client.batch_execute(&format!("create schema {schema}; set local search_path = {search_path}")).await?;
    roles::share(client, build).await?;
    for script in [ledger::CREATE, scripts.create, ledger::INDEX].iter().chain(scripts.index) {
        client.batch_execute(script).await?;
    }
    Ok(())
}
