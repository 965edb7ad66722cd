//! The build that readers read, made anew where it stands: marked as being loaded, given what is configured, and then filled
//! as any other ([`super::load`]). Whatever dies meanwhile leaves the mark behind, so nobody takes what is there for the view;
//! and of an empty build, that what is configured is what it is to be made by.

use super::switch::stands;
use super::{BuildError, end, load, lock};
use crate::config::Config;
use crate::domain::build::BuildId;
use crate::domain::meaning::Meaning;
use crate::domain::operation::Phase;
use crate::domain::units::NextOffset;
use crate::store::{self, Connection, meaning, operations};

/// Marks the active build as being loaded, to be made by `meaning`, and notes that the operation has come to that, in one
/// transaction. Whoever projected into it is fenced. The tables are emptied by the load. Runs twice without harm.
pub async fn mark(client: &Connection, build: BuildId, meaning: &Meaning, operation: i64) -> Result<(), BuildError> {
    client.batch_execute("begin").await?;
    let marked = mark_inside(client, build, meaning, operation).await;
    end(client, marked).await
}

async fn mark_inside(client: &Connection, build: BuildId, meaning: &Meaning, operation: i64) -> Result<(), BuildError> {
    match lock(client, build).await? {
        None => return Err(BuildError::Unknown(build)),
        Some(standing) if !standing.active => return Err(BuildError::NotActive(build)),
        Some(_) => {}
    }
    client.execute(include_str!("sql/lock_progress_of.sql"), &[&build.view, &build.build.0]).await?;
    store::build::mark_loading(client, build).await?;
    meaning::restamp(client, build, meaning).await?;
    client.execute(include_str!("sql/clear_progress.sql"), &[&build.view, &build.build.0]).await?;
    operations::enter(client, operation, Phase::Loading).await?;
    Ok(())
}

/// Gives a build into which nothing was consumed the version of the projection that this binary has; whether that was
/// another one. The first build of a fresh database is made by migrations, which know of no version.
pub async fn take_version(client: &Connection, build: BuildId, meaning: &Meaning) -> Result<bool, BuildError> {
    client.batch_execute("begin").await?;
    let taken = take_version_inside(client, build, meaning).await;
    end(client, taken).await
}

async fn take_version_inside(client: &Connection, build: BuildId, meaning: &Meaning) -> Result<bool, BuildError> {
    let Some(standing) = lock(client, build).await? else { return Err(BuildError::Unknown(build)) };
    let stored = meaning::meaning_of(client, build).await?;
    let is_other = stored.is_some_and(|stored| stored.projection_version != meaning.projection_version);
    if !is_other || standing.loading || store::build::lock_consumed(client, build).await? {
        return Ok(false);
    }
    meaning::restamp(client, build, meaning).await?;
    Ok(true)
}

/// Records of the log, as it is now, that the build has not applied yet.
pub async fn left(client: &Connection, config: &Config, topic: &str, build: BuildId) -> anyhow::Result<i64> {
    let (log, stands) = (load::look_at_log(config, topic).await?, stands(client, build).await?);
    let left = log.into_iter().map(|(partition, marks)| {
        let next = stands.get(&partition).map_or(NextOffset::before(marks.low), |stand| stand.next_offset);
        next.distance_to(marks.high)
    });
    Ok(left.sum())
}
