//! `streamview views`: what there is of views in the database.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::desk::print_json;
use super::output;
use crate::builds::{self, BuildError};
use crate::config::Config;
use crate::store::leftovers::{self, Leftover};
use crate::store::{Connection, migrate, pool};

/// Look after what there is of views in the database
#[derive(Args, Debug)]
pub struct ViewsArgs {
    #[command(subcommand)]
    action: ViewsAction,
}

#[derive(Debug, Subcommand)]
enum ViewsAction {
    /// List and remove what is left of builds that nobody has a use for
    ///
    /// Builds of operations that are over, builds that were kept for as long as was asked, schemas and rows of the control tables
    /// whose build nobody knows. Instances of `serve` remove the first two by themselves. Never the active build, one that is
    /// kept, or one of an operation under way, also of one that begins at that moment. `GET /ops/views` shows the same
    /// (`leftovers`). The role of database.url has to own the tables, as for `migrate`. Exit code 1 if something is still there.
    Gc {
        /// Only tell what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does what is asked.
pub async fn run(arguments: ViewsArgs, config: &Config) -> Result<()> {
    let ViewsAction::Gc { dry_run, json } = arguments.action;
    migrate::open(&config.database).await?;
    // It waits for batches that are under way, as a decision does.
    let client = pool::connect_owning_operator(&config.database).await.context("cannot connect to database.url")?;
    let mut found = Vec::new();
    for view in leftovers::views(&client).await? {
        found.extend(leftovers::find(&client, &view).await.map_err(|error| anyhow::anyhow!(error))?);
    }
    let mut done = Vec::new();
    for left in found {
        let outcome = if dry_run { Outcome::Listed } else { remove(&client, &left).await };
        if !json {
            output::line(in_words(&left, &outcome))?;
        }
        done.push((left, outcome));
    }
    if json {
        print_json(&json!({ "items": done.iter().map(|(left, outcome)| as_json(left, outcome)).collect::<Vec<_>>() }))?;
    } else if done.is_empty() {
        output::line("nothing is left over")?;
    }
    match done.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_))).count() {
        0 => Ok(()),
        count => bail!("{count} of {} could not be removed", done.len()),
    }
}

/// What became of a leftover.
enum Outcome {
    /// Nothing was to be done.
    Listed,
    Removed,
    /// It is no leftover any more: somebody else has removed it, or uses it.
    Gone,
    Failed(String),
}

async fn remove(client: &Connection, left: &Leftover) -> Outcome {
    match builds::leftovers::remove(client, left.build).await {
        Ok(true) => Outcome::Removed,
        Ok(false) => Outcome::Gone,
        Err(error) => Outcome::Failed(why(&error)),
    }
}

/// With what depends on it, which Postgres tells beside the error.
fn why(error: &BuildError) -> String {
    let detail = match error {
        BuildError::Database(error) => error.as_db_error().and_then(|error| error.detail()),
        _ => None,
    };
    detail.map_or_else(|| error.to_string(), |detail| format!("{error}: {}", detail.replace('\n', "; ")))
}

fn in_words(left: &Leftover, outcome: &Outcome) -> String {
    let what = match &left.schema {
        Some(schema) => format!("schema {schema}, {}, and {} control rows", size(left.bytes), left.rows),
        None => format!("{} control rows", left.rows),
    };
    let became = match outcome {
        Outcome::Listed => "would be removed".to_owned(),
        Outcome::Removed => "removed".to_owned(),
        Outcome::Gone => "left alone, as it is no leftover any more".to_owned(),
        Outcome::Failed(why) => format!("cannot be removed: {why}"),
    };
    format!("{}: {what}: {}: {became}", left.build, left.reason)
}

fn as_json(left: &Leftover, outcome: &Outcome) -> serde_json::Value {
    let (became, error) = match outcome {
        Outcome::Listed => ("listed", None),
        Outcome::Removed => ("removed", None),
        Outcome::Gone => ("gone", None),
        Outcome::Failed(why) => ("failed", Some(why)),
    };
    json!({
        "view": left.build.view, "build": left.build.build.0, "schema": left.schema, "reason": left.reason.as_str(),
        "detail": left.reason.to_string(), "bytes": left.bytes, "rows": left.rows, "outcome": became, "error": error,
    })
}

fn size(bytes: i64) -> String {
    match bytes {
        ..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}
