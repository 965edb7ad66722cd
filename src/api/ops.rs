//! For operators: how far behind each view is, and how its consumer is doing; below, what is held and what was refused.

pub mod api_keys;
pub mod audit;
mod bodies;
mod calls;
pub mod decisions;
pub mod held;
pub mod letters;
pub mod mend;
pub mod model;
pub mod operations;
pub(in crate::api) mod paging;
pub mod pauses;
pub mod render;
pub mod verify;
pub mod views;

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::parameters::Parameters;
use super::problem::{self, Problem, ProblemBody};
use super::{Api, views_of};
use crate::domain::counters::Counters;
use crate::failure::Halt;
use crate::status::{StatusSnapshot, ViewState, ViewStatus};
use crate::store::read::{self, PartitionProgress, ReadError};

/// How far behind a view is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ViewLag {
    /// Name of the view.
    #[schema(example = "orders")]
    pub view: String,
    /// State of its projector in this process.
    #[schema(example = "running")]
    pub state: &'static str,
    /// Records not applied yet, all partitions. Null until observed.
    #[schema(required, minimum = 0)]
    pub total_lag: Option<i64>,
    /// When the lag was observed.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub observed_at: Option<Timestamp>,
    /// Every partition of the topic, whoever owns it.
    pub partitions: Vec<PartitionLagBody>,
}

/// How far behind one partition is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionLagBody {
    /// Source topic.
    #[schema(example = "orders.events")]
    pub topic: String,
    /// Partition number.
    #[schema(minimum = 0)]
    pub partition: i32,
    /// First offset not applied yet.
    pub next_offset: i64,
    /// One past the last readable offset.
    pub high_watermark: i64,
    /// Records not applied yet.
    #[schema(minimum = 0)]
    pub lag: i64,
    /// Age of the oldest of them, at most.
    #[schema(minimum = 0)]
    pub lag_seconds: f64,
    /// `ok`, `warn` (falling behind), `stall` (not moving), `stop` (not consumed) or `rewind` (moved back).
    #[schema(example = "ok")]
    pub verdict: &'static str,
    /// Why it is behind, if that is known.
    #[schema(required)]
    pub reason: Option<String>,
}

/// The lag of the asked or first view, and of every view when there are several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lags {
    /// The asked view, or the first.
    #[serde(flatten)]
    pub first: ViewLag,
    /// All views, when several run here and none was asked for by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub views: Vec<ViewLag>,
}

/// How far behind are the views?
///
/// As last observed by this process, with a verdict per partition and, where it is known, the reason. `/lags` is the same.
#[utoipa::path(get, path = "/ops/lags", tag = "operations",
    params(("view" = Option<String>, Query, description = "Only this view.", max_length = 256, min_length = 1, pattern = "^[^\\x00]+$")),
    responses(
        (status = 200, description = "The lag", body = Lags),
        (status = 400, description = "A parameter is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn lags(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (views, selected) = selected_views(&api, &request)?;
    let bodies: Vec<ViewLag> = views.iter().map(|status| view_lag(status, &status.snapshot())).collect();
    let Some(first) = bodies.first().cloned() else {
        return Err(Problem::new(&problem::VIEW_NOT_FOUND, "No view runs in this process"));
    };
    let several = bodies.len() > 1 && !selected;
    Ok(HttpResponse::Ok().json(Lags { first, views: if several { bodies } else { Vec::new() } }))
}

/// The views that the request is about, and whether it named one.
fn selected_views(api: &Api, request: &HttpRequest) -> Result<(Vec<Arc<ViewStatus>>, bool), Problem> {
    let mut parameters = Parameters::parse(request.query_string(), &["view"]);
    let name = parameters.id("view");
    parameters.finish()?;
    let all = views_of(&api.state);
    let Some(name) = name else { return Ok((all, false)) };
    let named: Vec<Arc<ViewStatus>> = all.into_iter().filter(|status| status.view == name).collect();
    if named.is_empty() {
        let detail = "No view of this name runs in this process";
        return Err(Problem::new(&problem::VIEW_NOT_FOUND, detail).parameter("view", &name, "is not a view here"));
    }
    Ok((named, true))
}

fn view_lag(status: &ViewStatus, snapshot: &StatusSnapshot) -> ViewLag {
    let (observed_at, lags) = match &snapshot.lags {
        Some((at, lags)) => (Some(*at), lags.as_slice()),
        None => (None, &[][..]),
    };
    let partitions = lags.iter().map(|lag| PartitionLagBody {
        topic: status.topic.clone(),
        partition: lag.position.partition.0,
        next_offset: lag.position.next_offset.0,
        high_watermark: lag.position.high_watermark.0,
        lag: lag.lag,
        lag_seconds: lag.lag_seconds,
        verdict: lag.verdict.as_str(),
        reason: lag.reason.clone(),
    });
    ViewLag {
        view: status.view.to_owned(),
        state: snapshot.state.as_str(),
        total_lag: observed_at.map(|_| lags.iter().map(|lag| lag.lag).sum()),
        observed_at,
        partitions: partitions.collect(),
    }
}

/// The consumers of this process.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consumers {
    /// One for each view.
    pub views: Vec<Consumer>,
}

/// The consumer of one view.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// Name of the view.
    pub view: &'static str,
    /// `starting`, `running`, `waiting_for_database`, `waiting_for_kafka`,
    /// `waiting_for_registry`, `halted`, `stopping` or `not_projecting`.
    #[schema(example = "running")]
    pub state: &'static str,
    /// What is going on, for people.
    #[schema(required)]
    pub reason: Option<String>,
    /// Since when it is in this state.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Set when the view stopped itself rather than be wrong.
    #[schema(required)]
    pub halt: Option<HaltBody>,
    /// Kafka consumer group.
    pub group: String,
    /// Source topic.
    pub topic: String,
    /// Active build.
    pub build: i32,
    /// Partitions that this process owns.
    pub partitions: Vec<OwnedPartitionBody>,
    /// What the database says of every partition of the build; null when it does not answer.
    #[schema(required)]
    pub progress: Option<Vec<ProgressBody>>,
    /// What became of every record ever consumed, all partitions; null when the database does not answer.
    #[schema(required)]
    pub conservation: Option<Conservation>,
}

/// Why a view stopped itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HaltBody {
    /// Stable name.
    #[schema(example = "log_truncated")]
    pub code: &'static str,
    /// What was seen.
    pub detail: String,
    /// What the operator does next.
    pub next_step: &'static str,
}

/// A partition owned by this process.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnedPartitionBody {
    /// Partition number.
    #[schema(minimum = 0)]
    pub partition: i32,
    /// The lane that applies it.
    #[schema(minimum = 0)]
    pub lane: usize,
    /// First offset not applied yet.
    pub next_offset: i64,
    /// Fencing number.
    pub owner_epoch: i64,
    /// Why nothing is read from it now, if so.
    #[schema(required)]
    pub paused: Option<String>,
    /// The stable name of that: `park_bound_reached`, `unreadable_batch`, `schema_not_found`, `paused` (the whole view, by an
    /// operator) or `not_owner`.
    #[schema(required, example = "park_bound_reached")]
    pub paused_code: Option<&'static str>,
    /// When its last batch was committed by this process.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub last_commit_at: Option<Timestamp>,
}

/// A partition as the database knows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressBody {
    /// Source topic.
    pub topic: String,
    /// Partition number.
    #[schema(minimum = 0)]
    pub partition: i32,
    /// First offset not applied yet.
    pub next_offset: i64,
    /// The instance that owns it.
    #[schema(required)]
    pub owner: Option<String>,
    /// Fencing number of that owner.
    pub owner_epoch: i64,
    /// What became of its records.
    pub conservation: Conservation,
}

/// consumed = applied + duplicate + late + conflict + parked + deadLettered, at every moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conservation {
    /// Records consumed.
    pub consumed: i64,
    /// Projected into the view.
    pub applied: i64,
    /// Already there.
    pub duplicate: i64,
    /// Older than the view.
    pub late: i64,
    /// Same sequence, another event.
    pub conflict: i64,
    /// Waiting behind a gap.
    pub parked: i64,
    /// Refused.
    pub dead_lettered: i64,
    /// Whether the sum is right; false is a defect of this service.
    pub balanced: bool,
}

impl From<Counters> for Conservation {
    fn from(counters: Counters) -> Self {
        let Counters { consumed, applied, duplicate, late, conflict, parked, dead_lettered } = counters;
        let balanced = counters.difference() == 0;
        Conservation { consumed, applied, duplicate, late, conflict, parked, dead_lettered, balanced }
    }
}

/// How are the consumers doing?
///
/// State and owned partitions as this process knows them, progress and counters as the database does. Answers without
/// the database too: then `progress` and `conservation` are null.
#[utoipa::path(get, path = "/ops/consumer", tag = "operations",
    params(("view" = Option<String>, Query, description = "Only this view.", max_length = 256, min_length = 1, pattern = "^[^\\x00]+$")),
    responses(
        (status = 200, description = "The consumers", body = Consumers),
        (status = 400, description = "A parameter is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn consumer(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (views, _) = selected_views(&api, &request)?;
    let pool = &api.state.ops_pool;
    let progress =
        join_all(views.iter().map(|status| pool.within_deadline(read::progress(pool, status.view, status.build))));
    let views = views.iter().zip(progress.await).map(|(status, progress)| consumer_of(status, progress));
    Ok(HttpResponse::Ok().json(Consumers { views: views.collect() }))
}

fn consumer_of(status: &ViewStatus, progress: Result<Vec<PartitionProgress>, ReadError>) -> Consumer {
    let snapshot = status.snapshot();
    let progress = progress
        .inspect_err(|error| tracing::debug!(view = status.view, error = %error, "could not read the progress"))
        .ok();
    let mut total = Counters::default();
    for partition in progress.iter().flatten() {
        total.add(&partition.counters);
    }
    let halt = match &snapshot.state {
        ViewState::Halted(Halt { code, detail, next_step }) => {
            Some(HaltBody { code, detail: detail.clone(), next_step })
        }
        _ => None,
    };
    let partitions = snapshot.partitions.iter().map(|(partition, owned)| OwnedPartitionBody {
        partition: partition.0,
        lane: owned.lane,
        next_offset: owned.next_offset.0,
        owner_epoch: owned.owner_epoch.0,
        paused: owned.paused.as_ref().map(|pause| pause.detail.clone()),
        paused_code: owned.paused.as_ref().map(|pause| pause.code),
        last_commit_at: owned.last_commit_at,
    });
    Consumer {
        view: status.view,
        state: snapshot.state.as_str(),
        reason: snapshot.reason.clone(),
        since: snapshot.since,
        halt,
        group: status.group.clone(),
        topic: status.topic.clone(),
        build: status.build.0,
        partitions: partitions.collect(),
        conservation: progress.is_some().then(|| total.into()),
        progress: progress.map(|partitions| partitions.into_iter().map(progress_body).collect()),
    }
}

fn progress_body(progress: PartitionProgress) -> ProgressBody {
    let PartitionProgress { topic, partition, next_offset, owner, owner_epoch, counters } = progress;
    ProgressBody {
        topic,
        partition: partition.0,
        next_offset: next_offset.0,
        owner,
        owner_epoch: owner_epoch.0,
        conservation: counters.into(),
    }
}
