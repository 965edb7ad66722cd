//! Probes: is the process alive, and can it serve.

use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::OwnFormat;
use super::{Api, EngineSeen, views_of};
use crate::domain::meaning::{Standing, in_words};
use crate::domain::pause::PAUSED;
use crate::status::{StatusSnapshot, ViewState, ViewStatus};
use crate::store::read::{self, ReadPool};
use crate::store::sqlstate::describe_read;

/// How long the database's answer is believed, so that probes cost nothing.
const DATABASE_CHECK_LIFE: Duration = Duration::from_millis(250);
const DATABASE_CHECK_TIMEOUT: Duration = Duration::from_millis(1000);

/// The state of the process.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, `degraded` (it serves, but somebody has to look) or `unavailable`.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// What it depends on.
    pub checks: Vec<Check>,
}

/// One thing that the process depends on.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Check {
    /// `database`, `read_database` where database.read_url is set, `shutdown`, `view:` and the name of a view, or `partition:` or `dead_letters:` with the name of its
    /// view where something waits, `paused:` with it where an operator has paused it, `configuration:` with it where its build keeps other settings than are configured, or `engine:` with the name of an engine of the stream manager that was asked lately.
    #[schema(example = "database")]
    pub name: String,
    /// `ok`, `degraded` or `unavailable`.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// What is going on.
    pub detail: String,
}

pub(super) fn check(name: impl Into<String>, ok: bool, detail: impl Into<String>) -> Check {
    Check { name: name.into(), status: if ok { "ok" } else { "unavailable" }, detail: detail.into() }
}

/// Is the process alive?
///
/// Answers as long as the process can answer at all. Never asks the database: restarting this process would not heal it.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It is", body = Health)))]
pub async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok", checks: Vec::new() })
}

/// Can this process serve?
///
/// Yes, if the database answers and every view here runs (or is meant not to run in this process). A view that is
/// starting, waits for Kafka or Postgres, or has halted says so with its reason. A paused partition and dead letters that
/// cannot be published are `degraded` and still 200: the other partitions go on, and reads are right. So is a view that an
/// operator has paused, or whose build is another binary's to project into, and an engine of the stream manager that does not
/// answer. `/healthz` is the same.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "It can", body = Health),
    (status = 503, description = "It cannot; `checks` says why", body = Health),
))]
pub async fn readyz(api: web::Data<Api>) -> HttpResponse {
    let mut checks = databases(&api).await;
    for status in views_of(&api.state) {
        let snapshot = status.snapshot();
        checks.push(view(status.view, &snapshot));
        checks.extend(configuration(&status));
        checks.extend(paused(status.view, &snapshot));
        checks.extend(degraded(status.view, &snapshot));
    }
    checks.extend((api.state.engines)().into_iter().map(engine));
    if api.state.shutting_down.is_cancelled() {
        checks.push(check("shutdown", false, "this process is shutting down"));
    }
    if checks.iter().all(|check| check.status != "unavailable") {
        let status = if checks.iter().all(|check| check.status == "ok") { "ok" } else { "degraded" };
        return HttpResponse::Ok().json(Health { status, checks });
    }
    unavailable(checks)
}

/// The answer of a process that cannot serve.
pub(super) fn unavailable(checks: Vec<Check>) -> HttpResponse {
    let mut response = HttpResponse::ServiceUnavailable().json(Health { status: "unavailable", checks });
    response.extensions_mut().insert(OwnFormat);
    response
}

async fn databases(api: &Api) -> Vec<Check> {
    if let Some((at, known)) = api.database_check().clone()
        && at.elapsed() < DATABASE_CHECK_LIFE
    {
        return known;
    }
    let mut fresh = vec![database("database", &api.state.watch.primary).await];
    if let Some(pool) = api.state.watch.of_views.as_ref().filter(|_| api.state.serve_reads) {
        let reads = database("read_database", pool).await;
        if let [primary] = fresh.as_mut_slice()
            && (primary.status, reads.status) == ("unavailable", "ok")
        {
            // Whoever reads a standby is served while the primary is away; a view that is projected here says for itself.
            primary.status = "degraded";
        }
        fresh.push(reads);
    }
    *api.database_check() = Some((Instant::now(), fresh.clone()));
    fresh
}

async fn database(name: &str, pool: &ReadPool) -> Check {
    match tokio::time::timeout(DATABASE_CHECK_TIMEOUT, read::ping(pool)).await {
        Ok(Ok(())) => check(name, true, "answers"),
        Ok(Err(error)) => check(name, false, describe_read(&error)),
        Err(_) => check(name, false, "did not answer within 1 s"),
    }
}

/// An engine of the stream manager that is away stops nothing here: streams run there, or are started when it is back.
fn engine(seen: EngineSeen) -> Check {
    let status = if seen.trouble.is_none() { "ok" } else { "degraded" };
    let detail = seen.trouble.unwrap_or_else(|| "answers".to_owned());
    Check { name: format!("engine:{}", seen.engine), status, detail }
}

fn view(name: &str, snapshot: &StatusSnapshot) -> Check {
    if let (ViewState::NotProjecting, Some(Standing { code, detail })) = (&snapshot.state, &snapshot.stands) {
        let detail = format!("not_projecting, {code}: {detail}");
        return Check { name: format!("view:{name}"), status: "degraded", detail };
    }
    let ok = matches!(snapshot.state, ViewState::Running | ViewState::NotProjecting);
    let detail = match (&snapshot.state, &snapshot.reason) {
        (ViewState::Halted(halt), _) => format!("halted, {}: {}. {}", halt.code, halt.detail, halt.next_step),
        (state, Some(reason)) => format!("{}: {reason}", state.as_str()),
        (state, None) => state.as_str().to_owned(),
    };
    check(format!("view:{name}"), ok, detail)
}

/// That the build keeps other settings than are configured: nobody has to hurry.
fn configuration(status: &ViewStatus) -> Option<Check> {
    let differences = status.differences();
    let words = || format!("{}; `streamview rebuild` would take up what is configured", in_words(&differences));
    (!differences.is_empty()).then(|| check(format!("configuration:{}", status.view), true, words()))
}

/// That an operator has paused the view: by whom, since when and why.
fn paused(name: &str, snapshot: &StatusSnapshot) -> Option<Check> {
    let pause = snapshot.paused.as_ref()?;
    let detail = format!("{pause}. Reads go on; `POST /ops/views/{name}/resume` has it go on");
    Some(Check { name: format!("paused:{name}"), status: "degraded", detail })
}

/// What waits without making the process useless. A partition whose new owner is another instance is no trouble.
fn degraded(name: &str, snapshot: &StatusSnapshot) -> Vec<Check> {
    let waits = |name, detail: &str| Check { name, status: "degraded", detail: detail.to_owned() };
    let paused = snapshot.partitions.iter().filter_map(|(partition, owned)| {
        let pause = owned.paused.as_ref().filter(|pause| !["not_owner", PAUSED].contains(&pause.code))?;
        Some(waits(format!("partition:{name}:{partition}"), &pause.detail))
    });
    let letters = snapshot.dead_letters_wait.as_ref();
    let letters = letters.map(|why| waits(format!("dead_letters:{name}"), &format!("they wait in their table: {why}")));
    paused.chain(letters).collect()
}
