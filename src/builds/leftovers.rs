//! Removes what is left of builds that nobody has a use for, under the lock by which builds are made, switched and asked to be
//! gone back to: what somebody has begun to use meanwhile stays.

use super::drop::remove_all;
use super::{BuildError, end, lock};
use crate::crash;
use crate::domain::build::BuildId;
use crate::store::types::BoxedError;
use crate::store::{Connection, DbError, leftovers};

/// Removes what is left of a build, in one transaction; `false`, and nothing is done, if nothing is left over of it by now.
pub async fn remove(client: &Connection, build: BuildId) -> Result<bool, BuildError> {
    if !build.is_well_named() {
        return Err(BuildError::BadName(build));
    }
    client.batch_execute("begin").await?;
    let removed = remove_inside(client, build).await;
    end(client, removed).await
}

async fn remove_inside(client: &Connection, build: BuildId) -> Result<bool, BuildError> {
    lock(client, build).await?;
    // Whatever was seen before: from here on it stays as it is.
    let found = leftovers::find(client, build.view).await.map_err(of_boxed)?;
    if found.iter().all(|left| left.build != build) {
        return Ok(false);
    }
    remove_all(client, build).await?;
    crash::point("cleanup.removed");
    Ok(true)
}

fn of_boxed(error: BoxedError) -> BuildError {
    match error.downcast::<DbError>() {
        Ok(error) => BuildError::Database(*error),
        Err(other) => BuildError::Unreadable(other),
    }
}
