//! Makes a build the one that readers read, in one transaction.

use super::{BuildError, end, lock};
use crate::domain::build::BuildId;
use crate::engine::view::BuildScripts;
use crate::store::{Connection, dead_letters, names, standstill};

/// Has the stable names show `build`, and makes it the active one. Decisions that it has refused count as never made from
/// now on; letters that the last active build has published are not published again. `client` owns the public views.
pub async fn publish(client: &Connection, build: BuildId, scripts: &BuildScripts) -> Result<(), BuildError> {
    client.batch_execute("begin").await?;
    let shown = show(client, build, scripts).await;
    end(client, shown).await
}

async fn show(client: &Connection, build: BuildId, scripts: &BuildScripts) -> Result<(), BuildError> {
    match lock(client, build).await? {
        None => return Err(BuildError::Unknown(build)),
        Some(standing) if standing.loading => return Err(BuildError::Loading(build)),
        Some(_) => {}
    }
    // What a relay has under way is no letter of this build's yet.
    dead_letters::hold_relay(client, build.view).await?;
    // No batch of any build is under way from here on: what each makes of a decision depends on which build is active.
    standstill::lock_progress(client, build.view).await?;
    for statement in [
        include_str!("sql/adopt_published.sql"),
        include_str!("sql/revoke_refused.sql"),
        include_str!("sql/deactivate.sql"),
        include_str!("sql/activate.sql"),
    ] {
        client.execute(statement, &[&build.view, &build.build.0]).await?;
    }
    client.batch_execute(&format!("set local search_path = {}", names::search_path(build))).await?;
    client.batch_execute(scripts.publish).await?;
    Ok(())
}
