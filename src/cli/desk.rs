//! What `held` and `dlq` have in common: the desk of a view, its arguments, and how answers are printed.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::output;
use crate::api::ops::model::{DecidedBody, DecidedInBulkBody, DecisionBody, NextStepBody};
use crate::api::ops::render::spell;
use crate::app;
use crate::config::Config;
use crate::registrations;
use crate::repair::decide::{Called, Once};
use crate::repair::request::{
    AGE_FORM, BulkBounds, DEFAULT_BULK, MAX_BULK, MAX_REASON_CHARS, Request, Why, age, empty_window,
};
use crate::repair::{Desk, DeskError};
use crate::steward;
use crate::store::{migrate, pool};
use crate::telemetry::metrics::Metrics;

/// Which view, and how to print.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// View [default: the first one]
    #[arg(long)]
    pub view: Option<String>,
    /// Print what the API would answer, as JSON
    #[arg(long)]
    pub json: bool,
}

/// Who decides and why.
#[derive(Args, Clone, Debug)]
pub struct WhyArgs {
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who decides
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, default_value = "anonymous")]
    pub actor: String,
    /// The same call with the same key has its effect once, and gets the same answer again
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// Reason and actor, as the desk takes them.
pub fn checked(reason: String, actor: String) -> Result<Why> {
    let within =
        |text: &str, most: usize| !text.trim().is_empty() && text.chars().count() <= most && !text.contains('\0');
    ensure!(within(&reason, MAX_REASON_CHARS), "--reason must have 1 to {MAX_REASON_CHARS} characters");
    ensure!(within(&actor, 256), "--actor must have 1 to 256 characters");
    Ok(Why::new(reason, actor))
}

/// How much of a filter is taken.
#[derive(Args, Clone, Debug)]
pub struct BulkArgs {
    /// Take all that match the filter
    #[arg(long)]
    pub all: bool,
    /// Only tell what would be done
    #[arg(long, requires = "all")]
    dry_run: bool,
    /// With --all: how many match, as told by --dry-run
    #[arg(long, value_name = "COUNT", requires = "all")]
    expect: Option<usize>,
    /// With --all: look at so many at most
    #[arg(long, value_name = "COUNT", default_value_t = DEFAULT_BULK, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BULK)))]
    limit: u32,
}

impl BulkArgs {
    /// As the desk takes it.
    pub fn bulk(&self) -> Result<BulkBounds> {
        ensure!(self.dry_run || self.expect.is_some(), "--all needs --dry-run first, then --expect with what it told");
        Ok(BulkBounds { dry_run: self.dry_run, limit: self.limit, expect: self.expect })
    }
}

/// Reads an age such as `900`, `PT15M` or `2h`.
pub fn parse_age(text: &str) -> Result<i64, String> {
    age(text).ok_or_else(|| AGE_FORM.to_owned())
}

/// Refuses `--older-than` and `--newer-than` between which nothing lies.
pub fn check_window(older_than: Option<i64>, newer_than: Option<i64>) -> Result<()> {
    match empty_window(older_than, newer_than) {
        Some(why) => bail!("--older-than must not be {why} --newer-than"),
        None => Ok(()),
    }
}

/// The desk of a view, once the database is there and of our version.
pub async fn open(config: &Config, common: &Common) -> Result<Desk> {
    let views = registrations::all();
    let view = match &common.view {
        None => views.first(),
        Some(name) => views.iter().find(|view| view.name == name),
    };
    let names: Vec<&str> = views.iter().map(|view| view.name).collect();
    let view = view.with_context(|| format!("there is no such view; there are: {}", names.join(", ")))?;
    let client = migrate::open(&config.database).await?;
    let reads = pool::read_pool(&config.database).context("database.url is not usable")?;
    let settings = config.views.get(view.name).with_context(|| format!("views.{} is not configured", view.name))?;
    let served = (view.clone(), settings.clone());
    let build = steward::look_at_active(&client, config, &served).await?;
    let pools = (reads, pool::WriterPool::new(&config.database));
    app::desk(&served, (config, &build.meaning.rules), &Arc::new(Metrics::new()), pools)
}

/// Asks for a decision and prints what came of it.
pub async fn decide(desk: &Desk, request: &Request, why: &WhyArgs, json: bool) -> Result<()> {
    let answer = ask(desk, request, why).await?;
    if json {
        return print_json(&answer);
    }
    output::text(in_words(&answer)?)
}

/// Asks for a decision; gives what the API would answer.
pub async fn ask(desk: &Desk, request: &Request, why: &WhyArgs) -> Result<Value> {
    let key = why.idempotency_key.as_deref();
    let checked = checked(why.reason.clone(), why.actor.clone())?;
    let visible = |key: &str| (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(key.is_none_or(visible), "--idempotency-key must have 1 to 255 visible ASCII characters");
    let (why, once) = (checked, key.map(|key| Once { key, spell }));
    Ok(match desk.call(request, &why, once).await.map_err(explain)? {
        Called::Now(outcome) => spell(&outcome).body,
        Called::Before(answer) => answer.body,
    })
}

/// Such an answer, for a terminal.
pub fn in_words(answer: &Value) -> Result<String> {
    Ok(match serde_json::from_value::<DecidedInBulkBody>(answer.clone()) {
        Ok(bulk) => bulk_text(&bulk),
        Err(_) => decided_text(&serde_json::from_value::<DecidedBody>(answer.clone())?),
    })
}

/// What the desk says, for a terminal.
pub fn explain(error: DeskError) -> anyhow::Error {
    match error {
        DeskError::Refused(refusal) => anyhow::anyhow!("{} ({})", refusal.detail, refusal.obstacle.as_str()),
        DeskError::Database(error) => anyhow::Error::new(error).context("the database did not do it"),
    }
}

fn decided_text(decided: &DecidedBody) -> String {
    let ids: Vec<String> = decided.decisions.iter().map(|decision| decision.id.to_string()).collect();
    format!("decision {}: {}\n", ids.join(", "), decided.detail)
}

fn bulk_text(bulk: &DecidedInBulkBody) -> String {
    let mut text = String::new();
    let sample: Vec<String> = bulk.sample.iter().map(|name| name.to_string().replace('"', "")).collect();
    let more = if bulk.more { " (more match than --limit allows; call again afterwards)" } else { "" };
    let done = if bulk.dry_run {
        format!("{} can be decided about", bulk.possible)
    } else {
        format!("{} decided", bulk.decided)
    };
    writeln!(text, "{} match{more}, {done}, {} cannot be", bulk.matched, bulk.impossible).expect("text grows");
    if !sample.is_empty() {
        writeln!(text, "such as {}", sample.join(", ")).expect("text grows");
    }
    for impossible in &bulk.impossible_sample {
        writeln!(text, "not: {} ({})", impossible.detail, impossible.code).expect("text grows");
    }
    if bulk.dry_run {
        writeln!(text, "nothing was changed; to do it, repeat with --expect {}", bulk.matched).expect("text grows");
    }
    text
}

/// Prints what the API would answer.
pub fn print_json(body: &impl Serialize) -> Result<()> {
    output::line(serde_json::to_string_pretty(body)?)
}

/// Rows in aligned columns under their names; the last column is as long as it is.
pub fn table(names: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = names.iter().map(|name| name.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&names).chain(rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A number or a dash.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// What can be done next.
pub fn steps(next: &[NextStepBody]) -> String {
    next.iter().map(|step| format!("  {:8} {}\n", step.action, step.effect)).collect()
}

/// Who, and for whom.
pub fn acting(actor: &str, on_behalf_of: Option<&str>) -> String {
    on_behalf_of.map_or_else(|| actor.to_owned(), |other| format!("{actor} for {other}"))
}

/// Decisions as a table.
pub fn decisions(decisions: &[DecisionBody]) -> String {
    let rows: Vec<Vec<String>> = decisions
        .iter()
        .map(|decision| {
            vec![
                decision.id.to_string(),
                decision.action.clone(),
                or_dash(decision.sequence),
                or_dash(decision.sequence_to),
                decision.status.clone(),
                acting(&decision.actor, decision.on_behalf_of.as_deref()),
                decision.decided_at.to_string(),
                decision.reason.clone(),
            ]
        })
        .collect();
    table(&["ID", "ACTION", "FROM", "TO", "STATUS", "ACTOR", "DECIDED", "REASON"], &rows)
}

/// Refuses a call that names both one and all, or neither, or that filters one.
pub fn one_or_all<T>(one: Option<T>, all: bool, what: &str, is_filtered: bool) -> Result<Option<T>> {
    match (one, all) {
        (Some(_), false) if is_filtered => bail!("filters go with --all, not with {what}"),
        (Some(_), true) => bail!("give {what} or --all, not both"),
        (None, false) => bail!("give {what}, or --all with a filter"),
        (one, _) => Ok(one),
    }
}
