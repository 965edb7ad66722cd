//! Puts the parts of the process together, serves, drains.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::FutureExt;
use futures_util::future::{OptionFuture, join, join_all};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::hub::{Audited, HubParts, HubSettings};
use crate::api::routes::ViewApi;
use crate::api::starting::{self, Starting};
use crate::api::{self, AheadOf, ApiState, EnginesOf, Server};
use crate::board::ViewBoard;
use crate::builds::{self, BuildError};
use crate::certificates::Certificates;
use crate::config::{Config, ConfigError, ViewRules, ViewSettings};
use crate::crash;
use crate::domain::build::BuildId;
use crate::failure::{Backoff, panic_text};
use crate::login::Gate;
use crate::login::audit::AuditLog;
use crate::manager::live::Live;
use crate::platforms::kafka;
use crate::registrations::{self, Registration};
use crate::repair::Desk;
use crate::schemas::client::{RegistryClient, install_tls};
use crate::steward::{self, FoundBuild, Household, Steward};
use crate::store::fit::Unfit;
use crate::store::read::ReadPool;
use crate::store::sqlstate::describe_chain;
use crate::store::{DbError, migrate, pool, progress, roles, wire};
use crate::streams::Streams;
use crate::streams::engines::Joined;
use crate::telemetry::metrics::Metrics;

mod signals;

pub use self::signals::{Interrupts, Signals};

/// How long it is looked, before a rebuild is begun, what can be expected of it.
const LOOKS_AHEAD: Duration = Duration::from_secs(5);

/// So long who calls waits for a process that starts; then it is told what that waits for.
const STARTS: Duration = Duration::from_millis(500);

/// How long the audit log has at least to be written to its end, however long the rest of a stop took.
const LAST_NOTES: Duration = Duration::from_secs(2);

const CANNOT_MAKE_ROLES: &str = "the roles cannot be made; the role of database.url has to be a superuser for this, or may create roles and owns the \
     database and its tables";

/// Which halves of the service a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Only {
    /// Both.
    #[default]
    Both,
    /// The projector, with health, metrics and the operator's endpoints.
    Projector,
    /// The API alone: nothing is projected.
    Api,
}

/// Whether the settings are usable, as far as that can be told without connecting to anything.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    config.check_exposure()?;
    let unusable = |error: anyhow::Error| ConfigError::Unusable { reason: format!("{error:#}") };
    wire::check(&config.database).map_err(|error| unusable(error.into()))?;
    install_tls();
    Gate::new(&config.auth, &config.database).map_err(unusable)?;
    kafka::check(&config.kafka).map_err(unusable)?;
    Certificates::new(&config.http.tls).map_err(unusable)?;
    if !config.schema_registry.url.is_empty() {
        RegistryClient::new(&config.schema_registry).map_err(unusable)?;
    }
    Ok(())
}

/// What nobody should miss about settings that are usable.
pub fn warnings(config: &Config) -> Vec<String> {
    let certificate =
        Certificates::new(&config.http.tls).ok().flatten().and_then(|certificates| certificates.warning());
    config.warnings().into_iter().map(str::to_owned).chain(certificate).collect()
}

/// A view to serve, with its settings.
pub type Served = (Registration, ViewSettings);

/// Serves until `stop` is cancelled, then drains; `ready` gets the bound addresses.
pub async fn serve(
    config: Arc<Config>,
    views: Vec<Served>,
    only: Only,
    stop: CancellationToken,
    ready: Option<oneshot::Sender<Vec<SocketAddr>>>,
) -> Result<()> {
    check(&config)?;
    config.warnings().into_iter().for_each(|warning| tracing::warn!("{warning}"));
    let (gate, audit) = (Gate::new(&config.auth, &config.database)?, AuditLog::default());
    let certificates = Certificates::new(&config.http.tls)?;
    let ((pool, reads), watch) = (pool::read_pools(&config.database)?, pool::watch_pools(&config.database)?);
    let metrics = Arc::new(Metrics::new());
    let (apis, joined) = (apis_of(&views), joined((&config, &views), &reads)?);
    let listener =
        api::listen(config.http.bind).with_context(|| format!("cannot bind http.bind = {}", config.http.bind))?;
    let builds = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        builds = start((&config, &views, only), &listener, (certificates.as_ref(), &metrics)) => builds?,
    };
    let (desks, ahead, stewards) =
        staff((&config, &metrics), (views, builds), (&pool, &watch.primary), only != Only::Api)?;
    let boards: Vec<Arc<ViewBoard>> = stewards.iter().map(Steward::board).collect();
    let shutting_down = CancellationToken::new();
    // It lives where reads are served: whoever only projects answers for nobody.
    let streams = if only == Only::Projector { None } else { Streams::of(&config, &metrics, joined)? };
    let (streams, live) = streams.map(live_of).unzip();
    let state = ApiState {
        pool: reads,
        ops_pool: pool,
        watch,
        database: config.database.clone(),
        settings: config.http.clone(),
        certificates: certificates.clone(),
        gate: gate.clone(),
        audit: audit.clone(),
        serve_reads: only != Only::Projector,
        views: boards.clone(),
        desks,
        ahead,
        hub: live.clone().map(|live| hub_of(live, &audit, &config)),
        live,
        manager: streams.as_ref().map(|streams| streams.manager.clone()),
        engines: engines_of(streams.as_ref()),
        metrics,
        shutting_down: shutting_down.clone(),
        under_way: Arc::default(),
    };
    let left = state.clone();
    let (server, addresses) = api::serve(state, listener, apis).context("cannot serve")?;
    announce((config.http.tls.scheme(), addresses), ready);
    let (handle, stop_views, stop_noting) = (server.handle(), CancellationToken::new(), CancellationToken::new());
    let mut looking =
        tokio::spawn(look_at_credentials((gate, certificates, Arc::clone(&left.metrics)), stop_views.clone()));
    let mut noting = tokio::spawn(audit.run(config.audit.clone(), config.database.clone(), stop_noting.clone()));
    let mut managing = tokio::spawn(manage(streams, stop_views.clone()));
    let stewards: Vec<_> = stewards.into_iter().map(|steward| tokio::spawn(steward.run(stop_views.clone()))).collect();
    let mut http = tokio::spawn(answer(server));
    let ended = tokio::select! {
        () = stop.cancelled() => None,
        ended = &mut http => Some(part_ended("HTTP server", ended)),
        ended = &mut looking => Some(part_ended("look at credentials", ended)),
        ended = &mut noting => Some(part_ended("audit log", ended)),
        ended = &mut managing => Some(part_ended("stream manager", ended)),
    };
    tracing::info!(failure = ended, "stopping");
    let is_followed = left.is_followed();
    shutting_down.cancel();
    // A server that is not there any more would not say that it has stopped.
    let answered = OptionFuture::from(ended.is_none().then(|| api::answered(&handle, &left, is_followed)));
    stop_views.cancel();
    let patience = Duration::from_millis(config.projector.shutdown_timeout_ms);
    let deadline = Instant::now() + patience;
    let drained = drain(answered.map(drop), (stewards, &boards), (deadline, patience));
    let (drained, managed) = join(drained, end_managing(managing, deadline)).await;
    http.abort();
    // What was called last is noted, even where the rest took all of the time.
    end_notes(noting, &stop_noting, deadline.max(Instant::now() + LAST_NOTES)).await;
    first_failure([ended.map_or(Ok(()), |ended| bail!("{ended}")), drained, managed])
}

/// What a stop comes to. One failure is the process's; of others, which may follow from it, the log tells.
fn first_failure<const N: usize>(outcomes: [Result<()>; N]) -> Result<()> {
    let mut failures = outcomes.into_iter().filter_map(Result::err);
    let Some(first) = failures.next() else { return Ok(()) };
    failures.for_each(|other| tracing::error!("{other:#}"));
    Err(first)
}

fn apis_of(views: &[Served]) -> Vec<ViewApi> {
    views.iter().filter_map(|(view, _)| view.api).map(|api| api()).collect()
}

/// Who looks after the views: a desk and a steward for each, and who looks ahead.
fn staff(
    (config, metrics): (&Arc<Config>, &Arc<Metrics>),
    (views, builds): (Vec<Served>, Vec<FoundBuild>),
    (pool, watch): (&ReadPool, &ReadPool),
    projects: bool,
) -> Result<(Vec<Desk>, AheadOf, Vec<Steward>)> {
    let writers = pool::WriterPool::new(&config.database);
    let desks = views
        .iter()
        .zip(&builds)
        .map(|(served, build)| desk(served, (config, &build.meaning.rules), metrics, (pool.clone(), writers.clone())));
    let desks = desks.collect::<Result<Vec<Desk>>>()?;
    let (served, found): (Vec<Served>, Vec<FoundBuild>) = views.into_iter().zip(builds).unzip();
    let households = households(config, served, (&desks, watch, projects));
    let ahead = ahead_of(households.clone());
    let stewards = households.into_iter().zip(found).map(|(household, found)| Steward::new(household, found));
    Ok((desks, ahead, stewards.collect::<Result<Vec<Steward>>>()?))
}

/// What a manager has to show, and the manager, which counts it.
fn live_of(streams: Streams) -> (Streams, Live) {
    let live = Live::of(&streams.manager);
    (streams.counting(live.queries.clone()), live)
}

fn hub_of(live: Live, audit: &AuditLog, config: &Config) -> HubParts {
    HubParts { service: Arc::new(Audited::new(live, audit.clone())), settings: HubSettings::of(&config.http) }
}

fn engines_of(streams: Option<&Streams>) -> EnginesOf {
    match streams {
        Some(streams) => Arc::new(streams.engines()),
        None => Arc::new(Vec::new),
    }
}

async fn answer(server: Server) -> std::io::Result<()> {
    crash::point("part.http");
    server.await
}

/// Ends when it is told to, and else never.
async fn manage(streams: Option<Streams>, stop: CancellationToken) {
    match streams {
        Some(streams) => streams.run(stop).await,
        None => stop.cancelled().await,
    }
}

/// Waits until the stream manager has made the call that it was making. What it does not finish, whoever leads next finds again.
/// Who has ended before has said why.
async fn end_managing(managing: JoinHandle<()>, deadline: Instant) -> Result<()> {
    let is_over = managing.is_finished();
    if !is_over && !matches!(tokio::time::timeout_at(deadline, managing).await, Ok(Ok(()))) {
        bail!(
            "the stream manager was not stopped in order within projector.shutdown_timeout_ms; who leads next goes on from \
             what is written"
        );
    }
    Ok(())
}

/// Waits until what was called is noted. Who has ended before has said why.
async fn end_notes<T>(noting: JoinHandle<T>, stop: &CancellationToken, deadline: Instant) {
    let notes = !noting.is_finished();
    stop.cancel();
    if !notes || !matches!(tokio::time::timeout_at(deadline, noting).await, Ok(Ok(_))) {
        tracing::error!("the audit log is not written to its end");
    }
}

fn announce((scheme, addresses): (&str, Vec<SocketAddr>), ready: Option<oneshot::Sender<Vec<SocketAddr>>>) {
    for address in &addresses {
        tracing::info!(%address, "serving {scheme}");
    }
    if let Some(ready) = ready
        && ready.send(addresses).is_err()
    {
        tracing::debug!("nobody waited for the addresses");
    }
}

/// Ends when it is told to, and else never.
async fn look_at_credentials(
    (gate, certificates, metrics): (Option<Arc<Gate>>, Option<Arc<Certificates>>, Arc<Metrics>),
    stop: CancellationToken,
) -> std::io::Result<()> {
    let callers = async {
        match gate {
            Some(gate) => gate.run(stop.clone()).await,
            None => stop.cancelled().await,
        }
    };
    let own = async {
        match certificates {
            Some(certificates) => certificates.run(&metrics, stop.clone()).await,
            None => stop.cancelled().await,
        }
    };
    join(callers, own).await;
    Ok(())
}

fn households(
    config: &Arc<Config>,
    views: Vec<Served>,
    (desks, pool, projects): (&[Desk], &ReadPool, bool),
) -> Vec<Household> {
    let household = |(served, desk): (Served, &Desk)| {
        let (config, pool, desk) = (Arc::clone(config), pool.clone(), desk.clone());
        Household { served, config, pool, desk, projects }
    };
    views.into_iter().zip(desks).map(household).collect()
}

/// How the API looks what can be expected of a rebuild. What cannot be told in time the operation tells.
fn ahead_of(households: Vec<Household>) -> AheadOf {
    let runtime = Handle::current();
    Arc::new(move |view| {
        let household = households.iter().find(|household| household.name() == view).cloned();
        let looking = household.map(|household| {
            runtime.spawn(async move { tokio::time::timeout(LOOKS_AHEAD, steward::outlook(&household)).await })
        });
        Box::pin(async move {
            match looking?.await {
                Ok(Ok(Ok(outlook))) => Some(outlook),
                told => {
                    tracing::debug!(view, ?told, "what comes of the rebuild is told by the operation");
                    None
                }
            }
        })
    })
}

/// Lets requests and views end in order, within the deadline.
async fn drain(
    answered: impl Future<Output = ()>,
    (stewards, boards): (Vec<JoinHandle<()>>, &[Arc<ViewBoard>]),
    (deadline, patience): (Instant, Duration),
) -> Result<()> {
    let Ok((ended, ())) = tokio::time::timeout_at(deadline, join(join_all(stewards), answered)).await else {
        let parts: Vec<String> =
            boards.iter().flat_map(|board| board.statuses()).flat_map(|status| status.parts()).collect();
        bail!(
            "not drained within projector.shutdown_timeout_ms = {}; what was under way is repeated; {}",
            patience.as_millis(),
            match parts.as_slice() {
                [] => "requests are still being answered".to_owned(),
                parts => format!("still at work: {}", parts.join(", ")),
            }
        );
    };
    for error in ended.into_iter().filter_map(Result::err) {
        tracing::error!(error = %error, "a view was not stopped in order");
    }
    tracing::info!("stopped");
    Ok(())
}

/// The views that streams can be joined with, read by these connections.
pub fn joined((config, views): (&Config, &[Served]), pool: &ReadPool) -> Result<Joined> {
    let rows = |(view, settings): &Served| {
        Ok(view.spec(&config.rules_of(settings))?.tables.rows.map(|rows| (view.name, rows)))
    };
    let mut views = views.iter().map(rows).filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
    views.retain(|(_, rows)| !rows.joined.is_empty());
    Ok(Joined { views, pool: pool.clone() })
}

/// The APIs of all registered views.
pub fn view_apis() -> Vec<ViewApi> {
    registrations::all().into_iter().filter_map(|view| view.api).map(|api| api()).collect()
}

/// The repair desk of a view, whose active build goes by these rules.
pub fn desk(
    (view, settings): &Served,
    (config, rules): (&Config, &ViewRules),
    metrics: &Arc<Metrics>,
    pools: (ReadPool, pool::WriterPool),
) -> Result<Desk> {
    let checker = view.checker(config, rules, metrics)?;
    let mender = view.mender((config, settings), metrics)?;
    let gap_policy = config.gap_policy_of(settings);
    Ok(Desk::new(view.name, (config, gap_policy, rules), (checker, mender, view.sequences), pools))
}

/// The active build of each view. While Postgres does not tell, whoever calls is told that: nobody who asks whether the process lives
/// has to start it again.
async fn start(
    (config, views, only): (&Config, &[Served], Only),
    listener: &TcpListener,
    (certificates, metrics): (Option<&Arc<Certificates>>, &Arc<Metrics>),
) -> Result<Vec<FoundBuild>> {
    let starting = Starting::new(views.iter().map(|(view, _)| view.name).collect(), Arc::clone(metrics));
    let mut builds = std::pin::pin!(wait_for_builds(config, views, only, &starting));
    if let Ok(builds) = tokio::time::timeout(STARTS, &mut builds).await {
        return builds;
    }
    let answers = starting::serve(&starting, listener, &config.http, certificates.cloned()).context("cannot serve")?;
    let builds = builds.await;
    answers.end().await;
    builds
}

/// The active build of each view, as soon as Postgres answers. What no waiting can mend is an error at once: a schema that
/// is not ours, a database or a way to it that cannot carry us.
async fn wait_for_builds(
    config: &Config,
    views: &[Served],
    only: Only,
    starting: &Starting,
) -> Result<Vec<FoundBuild>> {
    let mut backoff = Backoff::default();
    loop {
        let error = match find_builds(config, views, only).await {
            Ok(builds) => return Ok(builds),
            Err(error) => error,
        };
        let database = error.chain().find_map(|cause| cause.downcast_ref::<DbError>());
        match database.map(|error| error.as_db_error()) {
            // Neither side begins to trust the other by itself.
            Some(None) if database.is_some_and(wire::is_refused) => return Err(error),
            Some(None) => {}
            Some(Some(db)) if is_passing(db.code().code()) => {}
            Some(Some(_)) => return Err(error).context("Postgres refuses us; check database.url"),
            None if matches!(error.downcast_ref(), Some(Unfit::TooFew)) => {}
            None => return Err(error),
        }
        let error = describe_chain(error.chain());
        if backoff.failures() == 0 {
            tracing::warn!(error, "waiting for Postgres");
        }
        starting.waits(error);
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

/// Whether an SQLSTATE tells of what passes: Postgres is away or busy, somebody holds a lock, or the server may only read.
fn is_passing(code: &str) -> bool {
    ["57", "53", "08", "40"].iter().any(|class| code.starts_with(class)) || ["55P03", "25006"].contains(&code)
}

async fn find_builds(config: &Config, views: &[Served], only: Only) -> Result<Vec<FoundBuild>> {
    let client = migrate::open(&config.database).await?;
    let mut builds = Vec::with_capacity(views.len());
    for view in views {
        builds.push(match only {
            Only::Api => steward::look_at_active(&client, config, view).await?,
            Only::Both | Only::Projector => steward::settle_active(&client, config, view).await?,
        });
    }
    Ok(builds)
}

/// Brings the schema up to date, and makes and publishes build 1 of each view that has no build yet. Gives what was done,
/// in words.
pub async fn migrate(config: &Config, views: &[Served]) -> Result<Vec<String>> {
    let mut done = migrate::migrate(&config.database).await?;
    let client = pool::connect_owner(&config.database, "public").await.context("cannot connect to database.url")?;
    for (view, settings) in views {
        let meaning = view.meaning(config.rules_of(settings))?;
        if let Some(build) = progress::active_build(&client, view.name).await? {
            let (build, version) = (BuildId { view: view.name, build }, meaning.projection_version);
            if builds::in_place::take_version(&client, build, &meaning).await? {
                done.push(format!("projection version {version} of {build}, which is empty"));
            }
            continue;
        }
        let (build, tables) = (BuildId::new(view.name, 1), view.spec(&meaning.rules)?.tables);
        match builds::create(&client, build, &tables, &meaning).await {
            // Made by a `migrate` that was cut short before it was published.
            Ok(()) | Err(BuildError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        builds::publish(&client, build, &tables).await?;
        done.push(build.to_string());
    }
    roles::renew(&client, config.audit.retention_days).await.context("the roles' rights cannot be granted")?;
    Ok(done)
}

/// Likewise, and makes the roles; gives them the tables that are there.
pub async fn migrate_with_roles(config: &Config, views: &[Served]) -> Result<Vec<String>> {
    let mut done = migrate(config, views).await?;
    let client = pool::connect_owning_operator(&config.database).await.context("cannot connect to database.url")?;
    roles::make(&client, config.audit.retention_days).await.context(CANNOT_MAKE_ROLES)?;
    done.push(roles::NAMES.to_owned());
    Ok(done)
}

/// The registered views with their settings.
pub fn configured_views(config: &Config) -> Result<Vec<Served>> {
    registrations::all()
        .into_iter()
        .map(|view| match config.views.get(view.name) {
            Some(settings) => Ok((view, settings.clone())),
            None => bail!("views.{} is not configured", view.name),
        })
        .collect()
}

/// That a part of the process ended unasked, in words.
fn part_ended(part: &str, end: Result<impl std::fmt::Debug, JoinError>) -> String {
    match end.map_err(JoinError::try_into_panic) {
        Ok(end) => format!("the {part} ended although nobody asked it to: {end:?}; report it with the log"),
        Err(Ok(panic)) => format!("the {part} panicked: {}; report it with the log", panic_text(&*panic)),
        Err(Err(error)) => format!("the {part} ended: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manager_that_does_not_end_in_time_fails_the_stop() {
        let endless = tokio::spawn(std::future::pending());
        let managed = end_managing(endless, Instant::now()).await;
        let failure = first_failure([Ok(()), Ok(()), managed]).unwrap_err();
        assert!(failure.to_string().contains("stream manager was not stopped in order"), "{failure}");
        let ending = tokio::spawn(std::future::ready(()));
        assert!(end_managing(ending, Instant::now() + LAST_NOTES).await.is_ok());
        let first = first_failure([Err(anyhow::anyhow!("first")), Ok(()), Err(failure)]).unwrap_err();
        assert_eq!(first.to_string(), "first");
    }
}
