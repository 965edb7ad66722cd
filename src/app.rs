//! Puts the parts together: the only module that knows all others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::api::routes::ViewApi;
use crate::api::{self, ApiState};
use crate::config::{Config, GapPolicy, ViewRules, ViewSettings};
use crate::failure::Backoff;
use crate::projector::runtime::{Parts, RunningView};
use crate::registrations::{self, Registration};
use crate::repair::{self, Desk};
use crate::store::read::ReadPool;
use crate::store::{DbError, migrate, pool, progress};
use crate::telemetry::metrics::Metrics;

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
    config.http.check_exposure()?;
    let pool = pool::read_pool(&config.database).context("database.url is not usable")?;
    let metrics = Arc::new(Metrics::new());
    let writers = pool::WriterPool::new(&config.database);
    let desks = views.iter().map(|(view, settings)| {
        let rules = config.rules_of(settings);
        desk(view, (&config, &rules), &metrics, (pool.clone(), writers.clone()))
    });
    let desks = desks.collect::<Result<Vec<Desk>>>()?;
    let apis = views.iter().filter_map(|(view, _)| view.api).map(|api| api()).collect();
    let builds = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        builds = wait_for_builds(&config, &views) => builds?,
    };
    let mut running: Vec<RunningView> = Vec::new();
    for ((registration, settings), build) in views.into_iter().zip(builds) {
        let group = group_of(&config, registration.name);
        let parts = Parts {
            config: Arc::clone(&config),
            settings,
            metrics: Arc::clone(&metrics),
            pool: pool.clone(),
            build,
            group,
        };
        running.push(match only {
            Only::Api => registration.observe(&parts)?,
            Only::Both | Only::Projector => registration.start(&parts)?,
        });
    }
    if only != Only::Api {
        skip_proven_gaps(&desks, &running, &stop);
    }
    let shutting_down = Arc::new(AtomicBool::new(false));
    let state = ApiState {
        pool,
        database: config.database.clone(),
        settings: config.http.clone(),
        serve_reads: only != Only::Projector,
        views: running.iter().map(|view| Arc::clone(&view.status)).collect(),
        desks,
        metrics,
        shutting_down: Arc::clone(&shutting_down),
    };
    let (server, addresses) =
        api::serve(state, apis).with_context(|| format!("cannot bind http.bind = {}", config.http.bind))?;
    for address in &addresses {
        tracing::info!(%address, "serving http");
    }
    if let Some(ready) = ready
        && ready.send(addresses).is_err()
    {
        tracing::debug!("nobody waited for the addresses");
    }
    let handle = server.handle();
    let http = tokio::spawn(server);
    stop.cancelled().await;
    tracing::info!("stopping");
    shutting_down.store(true, Ordering::Release);
    let deadline = Duration::from_millis(config.projector.shutdown_timeout_ms);
    let views = futures_util::future::join_all(running.into_iter().map(RunningView::stop));
    let drained = tokio::time::timeout(deadline, futures_util::future::join(handle.stop(true), views)).await;
    http.abort();
    if drained.is_err() {
        bail!(
            "not drained within projector.shutdown_timeout_ms = {}; what was under way is repeated",
            deadline.as_millis()
        );
    }
    tracing::info!("stopped");
    Ok(())
}

/// The APIs of all registered views.
pub fn view_apis() -> Vec<ViewApi> {
    registrations::all().into_iter().filter_map(|view| view.api).map(|api| api()).collect()
}

/// The repair desk of a view.
pub fn desk(
    view: &Registration,
    (config, rules): (&Config, &ViewRules),
    metrics: &Arc<Metrics>,
    pools: (ReadPool, pool::WriterPool),
) -> Result<Desk> {
    let checker = view.checker(config, rules, metrics)?;
    Ok(Desk::new(view.name, (config, rules), (checker, view.sequences), pools))
}

/// The consumer group of a view.
pub fn group_of(config: &Config, view: &str) -> String {
    match view {
        "orders" => config.kafka.group_id.clone(),
        other => format!("{}-{other}", config.kafka.group_id),
    }
}

fn skip_proven_gaps(desks: &[Desk], views: &[RunningView], stop: &CancellationToken) {
    for (desk, view) in desks.iter().zip(views).filter(|(desk, _)| desk.gap_policy == GapPolicy::Skip) {
        let (desk, status) = (desk.clone(), Arc::clone(&view.status));
        tokio::spawn(repair::policy::skip_proven_gaps(desk, status, stop.clone()));
    }
}

/// The active build of each view, as soon as Postgres answers. A schema that is not ours is an error at once.
async fn wait_for_builds(config: &Config, views: &[Served]) -> Result<Vec<i32>> {
    let mut backoff = Backoff::default();
    loop {
        match find_builds(config, views).await {
            Ok(builds) => return builds,
            Err(error) => {
                if backoff.failures() == 0 {
                    tracing::warn!(error = crate::store::sqlstate::describe(&error), "waiting for Postgres");
                }
                if error.as_db_error().is_some_and(|db| !matches!(db.code().code().get(..2), Some("57" | "53" | "08")))
                {
                    return Err(error).context("Postgres refuses us; check database.url");
                }
                tokio::time::sleep(backoff.next_wait()).await;
            }
        }
    }
}

async fn find_builds(config: &Config, views: &[Served]) -> Result<Result<Vec<i32>>, DbError> {
    let client = pool::connect_writer(&config.database, "public").await?;
    if let Err(error) = migrate::check(&client).await {
        return match error.downcast::<DbError>() {
            Ok(error) => Err(error),
            Err(other) => Ok(Err(other)),
        };
    }
    let mut builds = Vec::with_capacity(views.len());
    for (registration, _) in views {
        match progress::active_build(&client, registration.name).await? {
            Some(build) => builds.push(build),
            None => {
                return Ok(Err(anyhow::anyhow!("view {} has no build; run `streamview migrate`", registration.name)));
            }
        }
    }
    Ok(Ok(builds))
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

/// Cancelled by SIGTERM or Ctrl-C; a second signal ends the process at once.
pub fn stop_on_signals() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let first = stop.clone();
    tokio::spawn(async move {
        loop {
            let code = tokio::select! {
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            if first.is_cancelled() {
                std::process::exit(code);
            }
            first.cancel();
        }
    });
    Ok(stop)
}
