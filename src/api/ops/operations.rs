//! `/ops/operations` and what begins one: rebuilds and rollbacks (verifications: `verify.rs`), how far they are, and what may
//! be asked of them.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::calls::{BODY_BYTES, MAX_KEY_CHARS, id_in_path, why};
use super::paging::Page;
use crate::api::Api;
use crate::api::body::{self, Body};
use crate::api::caller;
use crate::api::idempotency;
use crate::api::parameters::Parameters;
use crate::api::paths::path_part;
use crate::api::problem::{self, Problem, ProblemBody};
use crate::domain::operation::{OperationState, Phase};
use crate::repair::Desk;
use crate::repair::model::Spelled;
use crate::repair::operations::{
    Ahead, Asked, CalledOperation, Cutover, DEFAULT_KEEP_HOURS, MAX_KEEP_HOURS, Mode, SpellOperation, Word,
};
use crate::repair::request::Why;
use crate::store::operations::{Operation, OperationFilter};

const ACCEPTED: i32 = 202;

/// Something that takes longer than a call.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationBody {
    /// Its number.
    #[schema(minimum = 1)]
    pub id: i64,
    /// `rebuild`, `rollback` or `verify`.
    #[schema(example = "rebuild")]
    pub kind: &'static str,
    /// Name of the view.
    #[schema(example = "orders")]
    pub view: String,
    /// `running`, `done`, `cancelled` or `failed`.
    #[schema(example = "running")]
    pub state: &'static str,
    /// How far it is: `preflight`, `loading`, `indexing`, `catching_up`, `comparing`, `ready`, `cutting_over`, `done`; of one
    /// that was cancelled or failed, where it ended.
    #[schema(example = "loading")]
    pub phase: &'static str,
    /// The build that readers read when it began.
    #[schema(required)]
    pub from_build: Option<i32>,
    /// The build that they read when it is done.
    #[schema(required)]
    pub to_build: Option<i32>,
    /// In phase `ready`: why it waits for somebody, in a sentence; else null.
    #[schema(required)]
    pub waiting_for: Option<String>,
    /// How far the present phase is.
    pub progress: OperationProgress,
    /// When each phase began.
    pub phases: Vec<PhaseBody>,
    /// What the comparison of both builds, or the verification, found; null before. `…/differences` has every key that was
    /// kept. Of a comparison, `explainedBy` says what makes other rows of the same events: the settings and the version in
    /// which both builds differ. Where columns are `unexplained` by that, readers are not switched by themselves.
    #[schema(required)]
    pub comparison: Option<Value>,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When anything was noted last.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// When it was over.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// Why it was asked for.
    pub reason: String,
    /// Who asked: where callers log in, who has logged in.
    pub actor: String,
    /// For whom, as who has logged in says in `actor`; null where they say nothing, or nobody logs in.
    #[schema(required)]
    pub on_behalf_of: Option<String>,
    /// Who has called it off or has had readers switched; null where nobody has, or nobody logs in.
    #[schema(required)]
    pub asked_by: Option<String>,
    /// Why it failed, with the next step; else null.
    #[schema(required)]
    pub error: Option<Value>,
    /// Where to look again.
    #[schema(example = "/ops/operations/7")]
    pub href: String,
}

/// How far an operation is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationProgress {
    /// Records read so far; of a verification, keys.
    pub records: i64,
    /// Records of the log, or keys that have a row, when it began; null until that is known.
    #[schema(required)]
    pub total: Option<i64>,
    /// Of a hundred.
    #[schema(required)]
    pub percent: Option<f64>,
    /// Since the loading began, on average; null in other phases.
    #[schema(required)]
    pub records_per_second: Option<f64>,
    /// Seconds until the loading ends at that pace.
    #[schema(required)]
    pub eta_seconds: Option<f64>,
}

/// A phase that an operation has come to.
#[derive(Debug, Serialize, ToSchema)]
pub struct PhaseBody {
    /// Its name.
    pub phase: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why the operation goes on otherwise than usual, if so.
    #[schema(required)]
    pub detail: Option<String>,
}

/// A page of operations.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationPage {
    /// The latest first.
    pub items: Vec<OperationBody>,
    /// Operations on a page.
    pub page_size: u32,
}

impl From<&Operation> for OperationBody {
    fn from(operation: &Operation) -> Self {
        let phases = phases_of(operation);
        OperationBody {
            id: operation.id,
            kind: operation.kind.as_str(),
            view: operation.view.clone(),
            state: operation.state.as_str(),
            phase: operation.phase.as_str(),
            from_build: operation.from_build.map(|build| build.0),
            to_build: operation.to_build.map(|build| build.0),
            waiting_for: waiting_for(operation),
            progress: progress_of(operation, &phases),
            phases,
            comparison: operation.comparison.clone(),
            started_at: operation.started_at,
            updated_at: operation.updated_at,
            finished_at: operation.finished_at,
            reason: operation.reason.clone(),
            actor: operation.actor.clone(),
            on_behalf_of: operation.on_behalf_of.clone(),
            asked_by: operation.asked_by.clone(),
            error: operation.error.clone(),
            href: href(operation.id),
        }
    }
}

fn href(id: i64) -> String {
    format!("/ops/operations/{id}")
}

/// Why an operation that could go on does not.
fn waiting_for(operation: &Operation) -> Option<String> {
    if operation.state != OperationState::Running {
        return None;
    }
    if operation.phase == Phase::CuttingOver {
        return Some(format!(
            "Readers are switched as soon as build {} has applied all that the present one has, has taken the same decisions, and \
             nobody reads for long. `GET /ops/views` tells whether it is fed and how far it is, the log what it lacks; POST \
             {}/cancel calls it off",
            operation.to_build.map_or(0, |build| build.0),
            href(operation.id)
        ));
    }
    if operation.phase != Phase::Ready {
        return None;
    }
    let call = format!("POST {}/cutover", href(operation.id));
    if operation.request["cutover"].as_str() == Some("manual") {
        return Some(format!("{call} switches readers"));
    }
    let unexplained = operation.comparison.as_ref().and_then(|found| found["unexplained"].as_object());
    let columns: Vec<String> =
        unexplained.into_iter().flatten().map(|(column, keys)| format!("{column} in {keys}")).collect();
    Some(format!(
        "Keys differ that should not, as neither version nor settings explain it ({}): look at `comparison`. {call} switches \
         readers all the same, POST {}/cancel drops the new build",
        columns.join(", "),
        href(operation.id)
    ))
}

fn phases_of(operation: &Operation) -> Vec<PhaseBody> {
    let entries = operation.phases.as_array().map(Vec::as_slice).unwrap_or_default();
    let body = |entry: &Value| {
        let detail = entry["detail"].as_str().map(str::to_owned);
        Some(PhaseBody { phase: entry["phase"].as_str()?.to_owned(), at: entry["at"].as_str()?.parse().ok()?, detail })
    };
    entries.iter().filter_map(body).collect()
}

fn progress_of(operation: &Operation, phases: &[PhaseBody]) -> OperationProgress {
    // Later phases count something else.
    let is_done = operation.state == OperationState::Done;
    let total = operation.records_total;
    let records = total.filter(|_| is_done).unwrap_or(operation.records_done);
    let percent =
        total.map(|total| if total > 0 { (1000.0 * records as f64 / total as f64).round() / 10.0 } else { 100.0 });
    let loading = operation.state == OperationState::Running && operation.phase == Phase::Loading;
    let since = phases.iter().rev().find(|entry| entry.phase == Phase::Loading.as_str()).filter(|_| loading);
    let seconds = since.map(|since| operation.updated_at.duration_since(since.at).as_secs_f64()).filter(|s| *s > 0.0);
    let rate = seconds.map(|seconds| (records as f64 / seconds).round()).filter(|rate| *rate > 0.0);
    let eta = rate.zip(total).map(|(rate, total)| ((total - records).max(0) as f64 / rate).round());
    OperationProgress { records, total, percent, records_per_second: rate, eta_seconds: eta }
}

/// An operation as the answer that is kept for a call that is made again.
pub fn spell(operation: &Operation) -> Spelled {
    let body = serde_json::to_value(OperationBody::from(operation)).expect("answers are plain data");
    Spelled { code: ACCEPTED, body }
}

/// What a rebuild is asked with.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "documentation; read by `rebuild`")]
pub struct RebuildRequest {
    /// Name of the view; the first one if left out.
    #[schema(required = false, example = "orders", min_length = 1, max_length = 256)]
    view: String,
    /// Why, for those who ask later.
    #[schema(min_length = 1, max_length = 1000, example = "version 2 of the projection")]
    reason: String,
    /// Who asks; where callers log in, for whom.
    #[schema(required = false, min_length = 1, max_length = 256)]
    actor: String,
    /// `auto`: readers are switched as soon as the new build is ready; `manual`: when `…/cutover` is called.
    #[schema(required = false, default = "auto", pattern = "^(auto|manual)$")]
    cutover: String,
    /// Hours that the old build is kept and fed, so that a rollback loses nothing.
    #[schema(required = false, minimum = 0, maximum = 8760, default = 24)]
    keep_hours: i64,
    /// Rebuild although the log does not begin where the old build began; with `in_place`, although it is another log.
    #[schema(required = false, default = false)]
    accept_truncated: bool,
    /// `shadow`: beside the build that readers read. `in_place`: that build is cleared and made anew from the log, and readers
    /// see a part of it meanwhile; only with `environment` `dev` or `test`.
    #[schema(required = false, default = "shadow", pattern = "^(shadow|in_place)$")]
    mode: String,
}

/// What a rollback is asked with.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "documentation; read by `rollback`")]
pub struct RollbackRequest {
    /// Why, for those who ask later.
    #[schema(min_length = 1, max_length = 1000, example = "totals are wrong in the new build")]
    reason: String,
    /// Who asks; where callers log in, for whom.
    #[schema(required = false, min_length = 1, max_length = 256)]
    actor: String,
    /// Hours that the build which readers leave is kept and fed.
    #[schema(required = false, minimum = 0, maximum = 8760, default = 24)]
    keep_hours: i64,
}

/// Rebuild a view
///
/// Makes a new build from the whole log beside the old one, while readers go on reading that, and switches them to it in one
/// short transaction. The old build is kept and fed, so that `rollback` shows every event that came since. Follow `Location`.
/// Before anything is begun it is looked for 5 s at most whether the log still makes what the view holds.
#[utoipa::path(post, path = "/ops/views/rebuild", operation_id = "rebuild_view", tag = "operations",
    params(("Idempotency-Key" = Option<String>, Header, description = "A call repeated with the same key begins nothing twice.",
        min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$")),
    request_body(content = RebuildRequest, content_type = "application/json"),
    responses(
        (status = 202, description = "It is begun", body = OperationBody, headers(("Location" = String, description = "The operation"))),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`, or `mode_not_allowed`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "`operation_running`: `operationId` names it; `view_paused`; or the log speaks against it: `history_truncated` with `missing`, `topic_compacted`, `source_changed`, `log_identity_changed`, each with `choices`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "`idempotency_key_reused`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn rebuild(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let (key, bytes) = read(&request, payload).await?;
    let mut body =
        Body::parse(&bytes, &["view", "reason", "actor", "cutover", "keepHours", "acceptTruncated", "mode"])?;
    let view = body.text("view", 256);
    let why = why(&mut body, &request);
    let cutover = match body.text("cutover", 10).as_deref() {
        None | Some("auto") => Cutover::Auto,
        Some("manual") => Cutover::Manual,
        Some(other) => {
            body.reject("cutover", other, "must be auto or manual");
            Cutover::Auto
        }
    };
    let keep_hours = keep_hours(&mut body);
    let accept_truncated = body.switch("acceptTruncated").unwrap_or(false);
    let mode = mode(&mut body);
    body.finish()?;
    let desk = match view {
        Some(view) => desk_of(&api, &view)?,
        None => any_desk(&api)?,
    };
    let asked = Asked::Rebuild { cutover, keep_hours, accept_truncated, mode, for_version: None };
    begin(&api, desk, (&asked, why, Some((api.state.ahead)(desk.view))), key).await
}

fn mode(body: &mut Body) -> Mode {
    match body.text("mode", 20).as_deref() {
        None | Some("shadow") => Mode::Shadow,
        Some("in_place") => Mode::InPlace,
        Some(other) => {
            body.reject("mode", other, "must be shadow or in_place");
            Mode::Shadow
        }
    }
}

/// Roll a view back
///
/// Switches readers back to the build that they left last, which was fed all the time: it shows every event that came since.
#[utoipa::path(post, path = "/ops/views/{view}/rollback", operation_id = "roll_view_back", tag = "operations",
    params(
        ("view" = String, Path, description = "Name of the view", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "orders"),
        ("Idempotency-Key" = Option<String>, Header, description = "A call repeated with the same key begins nothing twice.",
            min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$"),
    ),
    request_body(content = RollbackRequest, content_type = "application/json"),
    responses(
        (status = 202, description = "It is begun", body = OperationBody, headers(("Location" = String, description = "The operation"))),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "`operation_running`, `view_paused`, or `nothing_kept`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "`idempotency_key_reused`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn rollback(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let (key, bytes) = read(&request, payload).await?;
    let mut body = Body::parse(&bytes, &["reason", "actor", "keepHours"])?;
    let why = why(&mut body, &request);
    let keep_hours = keep_hours(&mut body);
    body.finish()?;
    let desk = desk_of(&api, path_part(&request, "view"))?;
    begin(&api, desk, (&Asked::Rollback { keep_hours }, why, None), key).await
}

/// The idempotency key and the body. There are no parameters.
pub(super) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Option<String>, web::Bytes), Problem> {
    Parameters::parse(request.query_string(), &[]).finish()?;
    let key = idempotency::key_of(request, MAX_KEY_CHARS)?;
    Ok((key, body::read(request, payload, BODY_BYTES).await?))
}

fn keep_hours(body: &mut Body) -> i64 {
    body.number("keepHours", 0..=MAX_KEEP_HOURS).unwrap_or(DEFAULT_KEEP_HOURS)
}

pub(super) fn desk_of<'a>(api: &'a Api, view: &str) -> Result<&'a Desk, Problem> {
    api.state.desks.iter().find(|desk| desk.view == view).ok_or_else(|| {
        let problem = Problem::new(&problem::VIEW_NOT_FOUND, "No view of this name runs in this process");
        problem.parameter("view", view, "is not a view here")
    })
}

pub(super) async fn begin(
    api: &Api,
    desk: &Desk,
    (asked, why, ahead): (&Asked, Why, Option<Ahead>),
    key: Option<String>,
) -> Result<HttpResponse, Problem> {
    let once = key.as_deref().map(|key| (key, spell as SpellOperation));
    let (answer, is_replayed) = match desk.begin_operation(asked, &why, once, ahead).await? {
        CalledOperation::Now(operation) => (spell(&operation), false),
        CalledOperation::Before(answer) => (answer, true),
    };
    for board in api.state.views.iter().filter(|board| board.view == desk.view) {
        board.look_now();
    }
    let location = answer.body["href"].as_str().unwrap_or_default().to_owned();
    let mut response = HttpResponse::build(StatusCode::ACCEPTED);
    if is_replayed {
        response.insert_header(("Idempotent-Replayed", "true"));
    }
    Ok(response.insert_header((header::LOCATION, location)).json(answer.body))
}

/// The parameters of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `list`")]
pub(super) struct OperationParameters {
    /// Of this view; of all if left out.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    view: Option<String>,
    /// `running`, `done`, `cancelled` or `failed`; any if left out.
    #[param(pattern = "^(running|done|cancelled|failed)$", required = false)]
    state: Option<String>,
    /// Operations on a page.
    #[param(rename = "pageSize", minimum = 1, maximum = 200, default = 50, required = false)]
    page_size: Option<u32>,
    /// A position, taken unchanged from a `Link` header, with the same filters.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$", required = false)]
    cursor: Option<String>,
}

/// List operations
///
/// Rebuilds, rollbacks and verifications, the latest first. Follow `Link: rel="next"`.
#[utoipa::path(get, path = "/ops/operations", operation_id = "list_operations", tag = "operations", params(OperationParameters), responses(
    (status = 200, description = "One page", body = OperationPage, headers(
        ("Link" = String, description = "RFC 8288 links `first` and `next`; no `next` on the last page"),
    )),
    (status = 400, description = "A parameter or the cursor is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
    (status = 404, description = "No view runs here", body = ProblemBody<'static>, content_type = "application/problem+json"),
))]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string(), &["view", "state", "pageSize", "cursor"]);
    let (view, state) = (parameters.id("view"), state_of(&mut parameters));
    let filters = [("view", view.clone()), ("state", state.map(|state| state.as_str().to_owned()))];
    let page = Page::take(parameters, &api.state.settings, ("/ops/operations", "-id"), &filters)?;
    let filter = OperationFilter { view, state, id: None, before: page.after_id()? };
    let mut found = any_desk(&api)?.operations(&filter, page.limit).await?;
    let link = page.link(&mut found, |operation| (String::new(), operation.id.to_string()));
    let items = found.iter().map(OperationBody::from).collect();
    Ok(HttpResponse::Ok().insert_header((header::LINK, link)).json(OperationPage { items, page_size: page.limit }))
}

fn state_of(parameters: &mut Parameters) -> Option<OperationState> {
    let word = parameters.one("state")?;
    let state = word.parse().ok();
    if state.is_none() {
        parameters.reject("state", &word, &format!("must be one of {}", OperationState::WORDS.join(", ")));
    }
    state
}

/// Operations are those of all views.
pub(super) fn any_desk(api: &Api) -> Result<&Desk, Problem> {
    api.state.desks.first().ok_or_else(|| Problem::new(&problem::VIEW_NOT_FOUND, "No view runs in this process"))
}

/// Get an operation
///
/// How far it is, and what came of it.
#[utoipa::path(get, path = "/ops/operations/{id}", operation_id = "get_operation", tag = "operations",
    params(("id" = i64, Path, description = "Its number", minimum = 1)),
    responses(
        (status = 200, description = "The operation", body = OperationBody),
        (status = 400, description = "The id is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`operation_not_found`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn show(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let operation = any_desk(&api)?.operation(id_in_path(&request)?).await?;
    Ok(HttpResponse::Ok().json(OperationBody::from(&operation)))
}

/// Call an operation off
///
/// Until readers are being switched: what it has made is taken away, and readers never saw it. Of a rebuild in place, until
/// the view is being cleared.
#[utoipa::path(post, path = "/ops/operations/{id}/cancel", operation_id = "cancel_operation", tag = "operations",
    params(("id" = i64, Path, description = "Its number", minimum = 1)),
    responses(
        (status = 202, description = "It is told to whoever drives it", body = OperationBody),
        (status = 400, description = "The id is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`operation_not_found`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "`operation_over`, or `wrong_phase`: readers are being switched", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn cancel(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    ask(&api, &request, Word::Cancel).await
}

/// Switch readers to a build that is ready
///
/// For a rebuild with `cutover = manual`, in phase `ready`.
#[utoipa::path(post, path = "/ops/operations/{id}/cutover", operation_id = "cut_operation_over", tag = "operations",
    params(("id" = i64, Path, description = "Its number", minimum = 1)),
    responses(
        (status = 202, description = "It is told to whoever drives it", body = OperationBody),
        (status = 400, description = "The id is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`operation_not_found`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "`operation_over`, or `wrong_phase`: it is not ready", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn cutover(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    ask(&api, &request, Word::Cutover).await
}

async fn ask(api: &Api, request: &HttpRequest, word: Word) -> Result<HttpResponse, Problem> {
    let (desk, by) = (any_desk(api)?, caller::principal(request));
    let by = by.as_deref().map(|by| by.name.as_str());
    let operation = desk.ask_operation(id_in_path(request)?, word, by).await?;
    Ok(HttpResponse::Accepted().json(OperationBody::from(&operation)))
}
