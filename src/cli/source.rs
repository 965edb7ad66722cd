//! `streamview source`: which log a view is made from, and the decision that it was moved.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::desk::{checked, or_dash, table};
use super::output;
use crate::config::Config;
use crate::repair::source::{self, BoundBuild, SourceMove};
use crate::store::{migrate, pool};

/// Look at the topic that a view is made from, or say that it was moved
///
/// A build belongs to one cluster, topic and topic id. Another one halts the view with `source_changed`: two topics in the
/// same tables would be wrong without a word.
#[derive(Args, Debug)]
pub struct SourceArgs {
    #[command(subcommand)]
    action: SourceAction,
}

#[derive(Debug, Subcommand)]
enum SourceAction {
    /// Show what each build is made from, and what was decided about it
    Show {
        /// View
        #[arg(long, default_value = "orders")]
        view: String,
    },
    /// Say that the topic which is configured now is the old one, moved with its offsets
    ///
    /// For a topic that was renamed, or copied to another cluster, by something that keeps every record at its offset.
    /// Stop the instances, set views.<view>.topic and kafka.bootstrap_servers, call this, start them. Each partition's
    /// last consumed record is compared then; if another one stands there, the view halts and nothing is applied.
    Moved {
        /// View
        #[arg(long, default_value = "orders")]
        view: String,
        /// The topic that the view is made from
        #[arg(long, value_name = "TOPIC")]
        from: String,
        /// Why, for those who ask later
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Who decides
        #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, default_value = "anonymous")]
        actor: String,
    },
}

/// Does what is asked.
pub async fn run(arguments: SourceArgs, config: &Config) -> Result<()> {
    let client = migrate::open(&config.database).await?;
    match arguments.action {
        SourceAction::Show { view } => {
            settings_of(config, &view)?;
            let (bound, moves) = (source::bindings(&client, &view).await?, source::moves(&client, &view).await?);
            output::text(shown(&bound, &moves))?;
        }
        SourceAction::Moved { view, from, reason, actor } => {
            let to = settings_of(config, &view)?;
            let why = checked(reason, actor)?;
            let client = pool::connect_operator(&config.database).await.context("cannot use database.url")?;
            let id = source::decide(&client, &view, (&from, to), &why).await?;
            output::line(format_args!(
                "decision {id}: view {view} goes on from topic {to}, at the offsets that it had in {from}; start its instances"
            ))?;
        }
    }
    Ok(())
}

/// The topic that is configured for a view.
fn settings_of<'c>(config: &'c Config, view: &str) -> Result<&'c str> {
    let settings = config.views.get(view).with_context(|| format!("views.{view} is not configured"))?;
    Ok(&settings.topic)
}

fn shown(bound: &[BoundBuild], moves: &[SourceMove]) -> String {
    let rows: Vec<Vec<String>> = bound
        .iter()
        .map(|bound| {
            vec![
                bound.build.to_string(),
                if bound.active { "yes" } else { "no" }.to_owned(),
                or_dash(bound.binding.cluster.as_deref()),
                or_dash(bound.binding.topic_id.as_deref()),
                or_dash(bound.bound_at),
                or_dash(bound.binding.topic.as_deref()),
            ]
        })
        .collect();
    let mut text = table(&["BUILD", "ACTIVE", "CLUSTER", "TOPIC ID", "BOUND", "TOPIC"], &rows);
    if !moves.is_empty() {
        let rows: Vec<Vec<String>> = moves
            .iter()
            .map(|moved| {
                vec![
                    moved.id.to_string(),
                    or_dash(moved.from.topic.as_deref()),
                    moved.to_topic.clone(),
                    moved.actor.clone(),
                    moved.decided_at.to_string(),
                    moved.reason.clone(),
                ]
            })
            .collect();
        text.push_str("\nmoved\n");
        text.push_str(&table(&["ID", "FROM", "TO", "ACTOR", "DECIDED", "REASON"], &rows));
    }
    text
}
