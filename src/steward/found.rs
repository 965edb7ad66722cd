//! By which rules a build is run here: those that are stored with it.

use anyhow::{Context, Result};

use crate::config::{Config, ViewSettings};
use crate::domain::build::{Build, BuildId};
use crate::domain::meaning::{Meaning, Standing};
use crate::registrations::Registration;
use crate::store::meaning::{self, Asking, Settled};
use crate::store::{Connection, operations, progress};

/// A build, and by what it goes on.
#[derive(Debug, Clone)]
pub struct FoundBuild {
    /// Its number.
    pub build: Build,
    /// What its rows mean.
    pub meaning: Meaning,
    /// Why this binary does not project into it, if so.
    pub stands: Option<Standing>,
    /// The last operation that has begun to clear it in place, as of a moment before the rest.
    pub cleared_by: Option<i64>,
}

/// A view with its settings.
type Served = (Registration, ViewSettings);

/// The active build as it is, for those who do not project.
pub async fn look_at_active(client: &Connection, config: &Config, served: &Served) -> Result<FoundBuild> {
    look_at(client, config, served, active_build(client, served.0.name).await?).await
}

/// The active build, its rules stored from now on if they were not.
pub async fn settle_active(client: &Connection, config: &Config, served: &Served) -> Result<FoundBuild> {
    settle(client, config, served, active_build(client, served.0.name).await?).await
}

/// A build as it is.
pub(super) async fn look_at(
    client: &Connection,
    config: &Config,
    (view, settings): &Served,
    id: BuildId,
) -> Result<FoundBuild> {
    let configured = view.meaning(config.rules_of(settings))?;
    let cleared_by = operations::cleared_by(client, id).await?;
    let stored = meaning::meaning_of(client, id).await?.with_context(|| format!("there is no {id}"))?;
    Ok(FoundBuild { build: id.build, meaning: stored.or(&configured), stands: None, cleared_by })
}

/// A build, its rules stored from now on if they were not.
pub(super) async fn settle(
    client: &Connection,
    config: &Config,
    (view, settings): &Served,
    id: BuildId,
) -> Result<FoundBuild> {
    let configured = view.meaning(config.rules_of(settings))?;
    let cleared_by = operations::cleared_by(client, id).await?;
    let settled = meaning::settle(client, id, &configured, Asking::Projector).await;
    let settled = settled.with_context(|| format!("cannot settle by which rules {id} is made"))?;
    let Settled { meaning, taken, stands } = settled.with_context(|| format!("there is no {id}"))?;
    if taken {
        let rules = meaning::as_json(&meaning.rules);
        tracing::info!(view = view.name, build = id.build.0, %rules, "the build is made by what is configured, from now on");
    }
    Ok(FoundBuild { build: id.build, meaning, stands, cleared_by })
}

/// That a view has no build.
pub fn no_build(view: &str) -> String {
    format!("view {view} has no build; run `streamview migrate`")
}

async fn active_build(client: &Connection, view: &'static str) -> Result<BuildId> {
    let build = progress::active_build(client, view).await?;
    let build = build.with_context(|| no_build(view))?;
    Ok(BuildId { view, build })
}
