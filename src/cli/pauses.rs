//! `streamview pause` and `streamview resume`: a view stands still, and goes on.

use anyhow::Result;
use clap::Args;

use super::desk::{Common, WhyArgs, acting, checked, explain, open, print_json};
use super::output;
use crate::api::ops::pauses::spell;
use crate::config::Config;
use crate::repair::pause::{CalledPause, SpellPause, Standstill};

/// Have a view stand still: nothing of it is applied, in no process, until `streamview resume`
///
/// Reads go on. It holds across restarts. An operation under way waits where it is.
#[derive(Debug, Args)]
pub struct PauseArgs {
    #[command(flatten)]
    asked: StandstillArgs,
}

/// Have a paused view go on
#[derive(Debug, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    asked: StandstillArgs,
}

#[derive(Debug, Args)]
struct StandstillArgs {
    /// View [default: the first one]
    view: Option<String>,
    #[command(flatten)]
    why: WhyArgs,
    /// Print what the API would answer, as JSON
    #[arg(long)]
    json: bool,
}

/// Pauses.
pub async fn pause(arguments: PauseArgs, config: &Config) -> Result<()> {
    stand_still(arguments.asked, Standstill::Pause, config).await
}

/// Resumes.
pub async fn resume(arguments: ResumeArgs, config: &Config) -> Result<()> {
    stand_still(arguments.asked, Standstill::Resume, config).await
}

async fn stand_still(arguments: StandstillArgs, asked: Standstill, config: &Config) -> Result<()> {
    let StandstillArgs { view, why, json } = arguments;
    let desk = open(config, &Common { view, json }).await?;
    let once = why.idempotency_key.as_deref().map(|key| (key, spell as SpellPause));
    let why = checked(why.reason.clone(), why.actor.clone())?;
    let body = match desk.stand_still(asked, &why, once).await.map_err(explain)? {
        CalledPause::Now(pause) => spell(desk.view, pause.as_ref()).body,
        CalledPause::Before(answer) => answer.body,
    };
    if json {
        return print_json(&body);
    }
    let pause = &body["paused"];
    let text = |name: &str| pause[name].as_str().unwrap_or_default();
    match pause.is_null() {
        true => output::line(format_args!("view {} goes on", desk.view))?,
        false => {
            let who = acting(text("actor"), pause["onBehalfOf"].as_str());
            output::line(format_args!(
                "view {} is paused by {who} since {}: {}",
                desk.view,
                text("since"),
                text("reason")
            ))?
        }
    }
    Ok(())
}
