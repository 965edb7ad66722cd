//! `streamview schemas`: our event schemas and those in the registry.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::output;
use crate::config::Config;
use crate::schemas::client::RegistryClient;
use crate::schemas::subjects::{self, Format, Strategy, Subject, Succession};
use crate::views::orders::contract::NEWEST_VERSION;
use crate::views::orders::subjects::subjects;

/// Register, check or compare the event schemas in the schema registry
///
/// The schemas are those of the order events, compiled into this binary. Registry and topic come from the
/// configuration (schema_registry.url, views.orders.topic).
#[derive(Debug, Args)]
pub struct SchemasArgs {
    #[command(subcommand)]
    action: Action,
    /// Avro or JSON Schema
    #[arg(long, global = true, value_enum, default_value = "avro")]
    format: Format,
    /// How subjects are named
    #[arg(long, global = true, value_enum, default_value = "topic")]
    strategy: Strategy,
    /// Version of the events
    #[arg(long, global = true, default_value_t = NEWEST_VERSION, value_parser = clap::value_parser!(u32).range(1..=i64::from(NEWEST_VERSION)))]
    version: u32,
    /// Topic in the subjects' names [default: views.orders.topic of the configuration]
    #[arg(long, global = true)]
    topic: Option<String>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Set each subject to BACKWARD and register its schema
    Register,
    /// Ask whether each schema may follow the registered one; exit code 1 and the registry's reasons if not
    Check,
    /// Show how each schema differs from the registered one; exit code 1 if any does
    Diff,
}

/// Runs the command.
pub async fn run(arguments: SchemasArgs, config: &Config) -> Result<()> {
    if config.schema_registry.url.is_empty() {
        bail!("no registry is configured; set schema_registry.url");
    }
    let client = RegistryClient::new(&config.schema_registry)?;
    let topic = match arguments.topic {
        Some(topic) => topic,
        None => config.views.get("orders").context("views.orders is not configured")?.topic.clone(),
    };
    let all = subjects(arguments.format, arguments.strategy, arguments.version, &topic);
    let mut failed = Vec::new();
    for subject in &all {
        let is_fine = match arguments.action {
            Action::Register => register(&client, subject).await?,
            Action::Check => check(&client, subject).await?,
            Action::Diff => diff(&client, subject).await?,
        };
        if !is_fine {
            failed.push(subject.name.as_str());
        }
    }
    match (arguments.action, failed.as_slice()) {
        (_, []) => Ok(()),
        (Action::Diff, names) => bail!("not as registered: {}", names.join(", ")),
        (_, names) => bail!("refused: {}", names.join(", ")),
    }
}

async fn register(client: &RegistryClient, subject: &Subject) -> Result<bool> {
    // Its reasons are better in the answer to a check than in that to a registration.
    if !check(client, subject).await? {
        return Ok(false);
    }
    let id = subjects::register(client, subject).await.with_context(|| format!("registering {}", subject.name))?;
    output::line(format_args!("{}: registered as id {id}", subject.name))?;
    Ok(true)
}

async fn check(client: &RegistryClient, subject: &Subject) -> Result<bool> {
    let verdict = subjects::check(client, subject).await.with_context(|| format!("checking {}", subject.name))?;
    match &verdict {
        Succession::First => output::line(format_args!("{}: nothing registered yet", subject.name))?,
        Succession::Compatible => output::line(format_args!("{}: compatible", subject.name))?,
        Succession::Incompatible(reasons) => {
            output::line(format_args!("{}: not compatible", subject.name))?;
            for reason in reasons {
                output::line(format_args!("  {reason}"))?;
            }
        }
    }
    Ok(!matches!(verdict, Succession::Incompatible(_)))
}

async fn diff(client: &RegistryClient, subject: &Subject) -> Result<bool> {
    let latest = subjects::latest(client, subject).await.with_context(|| format!("reading {}", subject.name))?;
    let Some(latest) = latest else {
        output::line(format_args!("{}: nothing registered yet", subject.name))?;
        return Ok(false);
    };
    let (theirs, ours) = (pretty(&latest), pretty(&subject.schema));
    if theirs == ours {
        output::line(format_args!("{}: as registered", subject.name))?;
        return Ok(true);
    }
    output::line(format_args!("{}: differs (- registered, + ours)", subject.name))?;
    let (theirs, ours): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    output::line(changed_lines(&theirs, &ours).join("\n"))?;
    Ok(false)
}

/// One member per line, in one order.
fn pretty(schema: &str) -> String {
    match serde_json::from_str::<Value>(schema) {
        Ok(value) => format!("{value:#}"),
        Err(_) => schema.to_owned(),
    }
}

/// The lines that only one side has, by their longest common subsequence.
fn changed_lines(old: &[&str], new: &[&str]) -> Vec<String> {
    let width = new.len() + 1;
    let mut common = vec![0usize; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(format!("- {}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_lines_are_shown_the_old_ones_first() {
        let changed = changed_lines(&["a", "b", "c", "d"], &["a", "x", "c", "d", "e"]);
        assert_eq!(changed, ["- b", "+ x", "+ e"]);
        assert!(changed_lines(&["a"], &["a"]).is_empty());
        assert_eq!(changed_lines(&[], &["a"]), ["+ a"]);
    }
}
