//! `streamview verify`: folds keys again from the ledger of the active build, or from the log, and compares them with their
//! rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use tokio::sync::mpsc;

use super::output;
use crate::app;
use crate::builds::verify::{Ask, Basis, Report, Scope, Verification};
use crate::config::Config;
use crate::domain::comparison::{Difference, Found};
use crate::projector::runtime::Parts;
use crate::steward;
use crate::store::{migrate, pool};
use crate::telemetry::metrics::Metrics;

/// How often it is said how far it is.
const SAY: Duration = Duration::from_secs(5);

/// Compare the rows of a view with what its ledger or its log says they should be
///
/// Folds keys again from the ledger of the active build (`projector.history = "payload"`) or from the log, and names what
/// differs: key, column and both values. Reads only, a page of keys in one snapshot each, so it does no harm while `serve`
/// runs. The role of database.url needs the right to make temporary tables. Exit code 1 if something differs or cannot be
/// told.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// View to verify
    #[arg(default_value = "orders")]
    view: String,
    /// So many keys, any of those that have a row
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with_all = ["all", "key"])]
    sample: Option<u32>,
    /// Every key; so it is if nothing else is said
    #[arg(long, conflicts_with = "key")]
    all: bool,
    /// One key
    #[arg(long)]
    key: Option<String>,
    /// By what it is told what rows should be: `ledger`, `log` or `both`
    #[arg(long, value_name = "BASIS", default_value = "ledger", value_parser = basis)]
    from: Basis,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn basis(word: &str) -> Result<Basis, String> {
    word.parse().map_err(|_| format!("must be one of {}", Basis::ALL.map(Basis::as_str).join(", ")))
}

/// Runs the command.
pub async fn run(arguments: VerifyArgs, config: &Arc<Config>) -> Result<()> {
    let views = app::configured_views(config)?;
    let known: Vec<&str> = views.iter().map(|(view, _)| view.name).collect();
    let known = format!("there is no view {}; known: {}", arguments.view, known.join(", "));
    let served = views.into_iter().find(|(view, _)| view.name == arguments.view).context(known)?;
    let found = steward::look_at_active(&migrate::open(&config.database).await?, config, &served).await?;
    let ((view, settings), build) = (served, found.build);
    let parts = Parts {
        settings,
        metrics: Arc::new(Metrics::new()),
        pool: pool::read_pool(&config.database)?,
        build,
        meaning: found.meaning,
        stands: found.stands,
        group: steward::group_of(config, view.name, build),
        config: Arc::clone(config),
    };
    let scope = match (arguments.key, arguments.sample) {
        (Some(key), _) => Scope::Key(key),
        (None, Some(count)) => Scope::Sample(count),
        (None, None) => Scope::All,
    };
    let (reports, mut heard) = mpsc::channel(1);
    let mut verifying = view.verify(parts, Ask { scope, basis: arguments.from }, reports);
    let mut said = Instant::now();
    let found = loop {
        tokio::select! {
            found = &mut verifying => break found?,
            Some(report) = heard.recv() => if let Report::Done(keys, _) = report && said.elapsed() >= SAY {
                said = Instant::now();
                eprintln!("{keys} keys so far");
            }
        }
    };
    if arguments.json {
        output::line(serde_json::to_string_pretty(&found)?)?;
    } else {
        output::text(in_words(&format!("view {}, build {build}", view.name), &found))?;
    }
    if !found.is_clean() {
        bail!("{} keys differ, {} cannot be told", found.comparison.compared - found.comparison.equal, found.untold);
    }
    Ok(())
}

fn in_words(what: &str, found: &Verification) -> String {
    let comparison = &found.comparison;
    let mut text = format!("{what}: {} keys compared, {} as they should be\n", comparison.compared, comparison.equal);
    for (column, count) in &comparison.columns {
        text.push_str(&format!("  {column} differs in {count}\n"));
    }
    for difference in &comparison.sample {
        text.push_str(&of_key(difference));
    }
    if comparison.compared - comparison.equal > comparison.sample.len() as u64 {
        text.push_str("  and more\n");
    }
    for (partition, offset) in &found.log_begins {
        text.push_str(&format!("partition {partition} of the log begins at offset {offset}\n"));
    }
    for (key, why) in &found.untold_sample {
        text.push_str(&format!("{key}: cannot be told, {why}\n"));
    }
    text
}

fn of_key(difference: &Difference) -> String {
    let Difference { key, found, columns, more } = difference;
    let mut text = match found {
        Found::Different => format!("{key}\n"),
        Found::MissingOld => format!("{key}: has no row\n"),
        Found::MissingNew => format!("{key}: has a row, and no event that it could be made of\n"),
    };
    for (column, values) in columns {
        text.push_str(&format!("  {column} is {}, should be {}\n", shown(&values.old), shown(&values.new)));
    }
    if *more > 0 {
        text.push_str(&format!("  and {more} values more\n"));
    }
    text
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
