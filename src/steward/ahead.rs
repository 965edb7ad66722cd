//! What comes of a rebuild, before it is asked for: what can be expected of it, for whoever asks; and that one is due because
//! only a later version of the projection is left.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Household;
use super::found::look_at_active;
use crate::builds::preflight::preflight;
use crate::domain::build::{Build, BuildId};
use crate::domain::preflight::Outlook;
use crate::platforms::kafka::dead_member::static_members;
use crate::repair::request::Why;
use crate::repair::{DeskError, Obstacle};
use crate::store::{meaning, pool};

/// How often it is looked whether anybody is left who projects the build.
pub(super) const LOOK_FOR_MEMBERS: Duration = Duration::from_secs(5);
/// Who has asked for it.
const ITSELF: &str = "streamview";

/// What can be expected of a rebuild of the view, as of now.
pub async fn outlook(household: &Household) -> Result<Outlook> {
    let client = pool::connect_writer(&household.config.database, "public").await?;
    let found = look_at_active(&client, &household.config, &household.served).await?;
    Ok(preflight(household.name(), &household.parts(found)).await?.outlook)
}

/// Begins a rebuild where the build is of an earlier version of the projection, and nobody is in its group who projects it.
/// Once: what became of it is for an operator to see.
pub(super) async fn take_up_version(household: &Household, group: String, build: Build) -> Result<()> {
    let id = BuildId { view: household.name(), build };
    let client = pool::connect_writer(&household.config.database, "public").await?;
    let (view, settings) = &household.served;
    let ours = view.meaning(household.config.rules_of(settings))?.projection_version;
    let stored = meaning::meaning_of(&client, id).await?.with_context(|| format!("there is no {id}"))?;
    let theirs = stored.projection_version;
    if theirs >= ours {
        return Ok(());
    }
    let kafka = household.config.kafka.clone();
    let members = tokio::task::spawn_blocking(move || static_members(&kafka, &group)).await?;
    let members = members.map_err(|error| anyhow::anyhow!("the broker does not tell who projects {id}: {error}"))?;
    if !members.is_empty() {
        return Ok(());
    }
    let reason = format!("projection version {ours} instead of {theirs} (rebuild.on_version_change)");
    let why = Why::new(reason, ITSELF);
    match household.desk.begin_for_version(id, ours, &why).await {
        Ok(_) => Ok(()),
        Err(DeskError::Refused(refusal)) if refusal.obstacle == Obstacle::ViewPaused => Ok(()),
        Err(error) => Err(error.into()),
    }
}
