//! `streamview rebuild` and `streamview rollback`: ask for an operation, watch it, and do the work where nobody else does.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::desk::{Common, WhyArgs, checked, explain, open, print_json};
use super::output;
use crate::api::ops::operations::{OperationBody, spell};
use crate::app::{self, Signals};
use crate::config::Config;
use crate::domain::operation::OperationState;
use crate::repair::Desk;
use crate::repair::operations::{Asked, CalledOperation, Cutover, MAX_KEEP_HOURS, Mode};
use crate::steward::{self, Household, Steward};
use crate::store::operations::{self, Operation};
use crate::store::{migrate, pool};

/// How often it is looked how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// How long somebody else has time to take the operation: a steward looks once a second.
const PATIENCE: Duration = Duration::from_secs(4);

/// Rebuild a view from its log, beside the live one, and switch readers to it
///
/// Instances of `serve` do the work; readers go on reading the old build until the new one is ready, and the old one is
/// kept and fed for a rollback. Where no instance runs, this command does the work itself. Exit code 1 if it fails or is called
/// off while this command waits for its end.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// View [default: the first one]
    view: Option<String>,
    #[command(flatten)]
    why: WhyArgs,
    /// Switch readers only when `POST /ops/operations/{id}/cutover` is called
    #[arg(long)]
    manual: bool,
    /// Hours that the old build is kept and fed
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(i64).range(0..=MAX_KEEP_HOURS))]
    keep_hours: i64,
    /// Rebuild although the log does not begin where the old build began; in place, although it is another log
    #[arg(long)]
    accept_truncated: bool,
    /// Where the rows are made
    #[arg(long, value_enum, default_value = "shadow")]
    mode: ModeArg,
    /// Wait for the end and show how far it is
    #[arg(long)]
    watch: bool,
    /// Print what the API would answer, as JSON
    #[arg(long)]
    json: bool,
}

/// Where the rows of a rebuild are made
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum ModeArg {
    /// In a build beside the one that readers read
    Shadow,
    /// In that one, cleared for it: readers see a part meanwhile. Only with environment = "dev" or "test"
    InPlace,
}

/// Switch readers back to the build that they left last
///
/// It was fed all the time, so it shows every event that came since. Exit code 1 if it fails or is called off.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// View [default: the first one]
    view: Option<String>,
    #[command(flatten)]
    why: WhyArgs,
    /// Hours that the build which readers leave is kept and fed
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(i64).range(0..=MAX_KEEP_HOURS))]
    keep_hours: i64,
    /// Print what the API would answer, as JSON
    #[arg(long)]
    json: bool,
}

/// Rebuilds.
pub async fn rebuild(arguments: RebuildArgs, config: &Arc<Config>, signals: Signals) -> Result<()> {
    let RebuildArgs { view, why, manual, keep_hours, accept_truncated, mode, watch, json } = arguments;
    let cutover = if manual { Cutover::Manual } else { Cutover::Auto };
    let mode = match mode {
        ModeArg::Shadow => Mode::Shadow,
        ModeArg::InPlace => Mode::InPlace,
    };
    let asked = Asked::Rebuild { cutover, keep_hours, accept_truncated, mode, for_version: None };
    carry_out(config, (view, why, json), &asked, watch, signals).await
}

/// Rolls back; that takes a moment, so its end is waited for.
pub async fn rollback(arguments: RollbackArgs, config: &Arc<Config>, signals: Signals) -> Result<()> {
    let RollbackArgs { view, why, keep_hours, json } = arguments;
    carry_out(config, (view, why, json), &Asked::Rollback { keep_hours }, true, signals).await
}

async fn carry_out(
    config: &Arc<Config>,
    (view, why, json): (Option<String>, WhyArgs, bool),
    asked: &Asked,
    watch: bool,
    signals: Signals,
) -> Result<()> {
    let desk = open(config, &Common { view, json }).await?;
    let once = why.idempotency_key.as_deref().map(|key| (key, spell as _));
    let id = match desk.begin_operation(asked, &checked(why.reason.clone(), why.actor.clone())?, once, None).await {
        Ok(CalledOperation::Now(operation)) => operation.id,
        Ok(CalledOperation::Before(answer)) => answer.body["id"].as_i64().context("the kept answer has no id")?,
        Err(error) => return Err(explain(error)),
    };
    if !json {
        output::line(format_args!("operation {id}: {} of view {}", asked.kind().as_str(), desk.view))?;
    }
    let stop = signals.stop.clone();
    signals.with(follow(config, &desk, id, (watch, json), stop)).await
}

/// Waits until somebody drives it, or drives it; and until it is over, if that is wanted.
async fn follow(
    config: &Arc<Config>,
    desk: &Desk,
    id: i64,
    (watch, json): (bool, bool),
    stop: CancellationToken,
) -> Result<()> {
    let is_driven = is_driven(config, desk, id, &stop).await?;
    // Who is told to stop before that is known begins nothing.
    let ours = if is_driven || stop.is_cancelled() { None } else { Some(drive(config, desk, &stop).await?) };
    let mut shown = Progress { is_quiet: json, ..Progress::default() };
    loop {
        let operation = desk.operation(id).await.map_err(explain)?;
        if operation.state != OperationState::Running || !(watch || ours.is_some()) {
            break;
        }
        shown.show(&operation)?;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    shown.end()?;
    stop.cancel();
    if let Some(ours) = ours {
        ours.await.context("the steward did not end in order")?;
    }
    // Our steward may have come to the end of it while it was stopped.
    let operation = desk.operation(id).await.map_err(explain)?;
    if json {
        print_json(&OperationBody::from(&operation))?;
    }
    told(&operation, json, is_driven)
}

/// Whether an instance drives it, or has; not, as far as is known, if we are told to stop first.
async fn is_driven(config: &Config, desk: &Desk, id: i64, stop: &CancellationToken) -> Result<bool> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if desk.operation(id).await.map_err(explain)?.state != OperationState::Running {
            return Ok(true);
        }
        // Given back as soon as it is had, with the connection.
        let client = pool::connect_operator(&config.database).await?;
        if !operations::take(&client, id).await? {
            return Ok(true);
        }
        drop(client);
        if tokio::time::Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Does what an instance of `serve` would do, but for the API.
async fn drive(config: &Arc<Config>, desk: &Desk, stop: &CancellationToken) -> Result<JoinHandle<()>> {
    eprintln!("no instance of `streamview serve` does it: this command does");
    let views = app::configured_views(config)?;
    let served = views.into_iter().find(|(view, _)| view.name == desk.view).context("the view is not configured")?;
    let active = steward::settle_active(&migrate::open(&config.database).await?, config, &served).await?;
    let pool = pool::read_pool(&config.database)?;
    let household = Household { served, config: Arc::clone(config), pool, desk: desk.clone(), projects: true };
    Ok(tokio::spawn(Steward::new(household, active)?.run(stop.clone())))
}

/// What became of it, in words unless it `is_quiet`; an error if not what was asked for, also where nothing is said.
fn told(operation: &Operation, is_quiet: bool, is_driven: bool) -> Result<()> {
    let id = operation.id;
    let words = match operation.state {
        OperationState::Done => {
            let to = operation.to_build.map_or_else(String::new, |build| format!(": readers read build {build}"));
            format!("operation {id} is done{to}")
        }
        OperationState::Running if is_driven => {
            format!("it goes on in an instance of `streamview serve`: GET /ops/operations/{id}")
        }
        OperationState::Running => {
            format!("operation {id} is left where it is: the next instance of `streamview serve` goes on with it")
        }
        OperationState::Cancelled => bail!("operation {id} was called off"),
        OperationState::Failed => {
            let error = operation.error.as_ref();
            let word = |name: &str| error.and_then(|error| error[name].as_str()).unwrap_or_default().to_owned();
            bail!("operation {id} has failed, {}: {}; {}", word("code"), word("detail"), word("nextStep"))
        }
    };
    if !is_quiet {
        output::line(words)?;
    }
    Ok(())
}

/// How far it is: one line that changes on a terminal, a line per change elsewhere.
#[derive(Default)]
struct Progress {
    is_quiet: bool,
    last: String,
}

impl Progress {
    fn show(&mut self, operation: &Operation) -> Result<()> {
        let body = OperationBody::from(operation);
        let mut line = body.phase.to_owned();
        if let (Some(percent), Some(total)) = (body.progress.percent, body.progress.total) {
            line.push_str(&format!(" {percent:.0} % of {total} records"));
        }
        if let Some(rate) = body.progress.records_per_second {
            line.push_str(&format!(", {rate:.0}/s"));
        }
        let otherwise = body.phases.last().and_then(|phase| phase.detail.as_ref());
        if let Some(words) = body.waiting_for.as_ref().or(otherwise) {
            line = format!("{line}: {words}");
        }
        if self.is_quiet || line == self.last {
            return Ok(());
        }
        if std::io::stdout().is_terminal() {
            output::text(format_args!("\r\x1b[K{line}"))?;
        } else {
            output::line(&line)?;
        }
        self.last = line;
        Ok(())
    }

    fn end(&self) -> Result<()> {
        if self.is_quiet || self.last.is_empty() || !std::io::stdout().is_terminal() {
            return Ok(());
        }
        output::line("")
    }
}
