//! `POST /ops/views/{view}/pause` and `/resume`: an operator has a view stand still, and go on.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::calls::why;
use super::operations::{desk_of, read};
use crate::api::Api;
use crate::api::body::Body;
use crate::api::paths::path_part;
use crate::api::problem::{Problem, ProblemBody};
use crate::domain::pause::ViewPause;
use crate::repair::model::Spelled;
use crate::repair::pause::{CalledPause, SpellPause, Standstill};

const OK: i32 = 200;

/// Whether a view is paused, after the call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Standstill)]
pub struct StandstillBody {
    /// Name of the view.
    #[schema(example = "orders")]
    pub view: &'static str,
    /// The pause; null: the view goes on.
    #[schema(required)]
    pub paused: Option<PauseBody>,
}

/// That an operator has a view stand still.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Pause)]
pub struct PauseBody {
    /// Why.
    pub reason: String,
    /// Who has said so: where callers log in, who has logged in.
    pub actor: String,
    /// For whom, as who has logged in says in `actor`; null where they say nothing, or nobody logs in.
    #[schema(required)]
    pub on_behalf_of: Option<String>,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

impl From<ViewPause> for PauseBody {
    fn from(ViewPause { reason, actor, on_behalf_of, since }: ViewPause) -> Self {
        PauseBody { reason, actor, on_behalf_of, since }
    }
}

/// What is, as the answer that is kept for a call that is made again.
pub fn spell(view: &'static str, paused: Option<&ViewPause>) -> Spelled {
    let body = StandstillBody { view, paused: paused.cloned().map(PauseBody::from) };
    Spelled { code: OK, body: serde_json::to_value(body).expect("answers are plain data") }
}

/// What both are asked with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documentation; read by `stand_still`")]
pub struct StandstillRequest {
    /// Why, for those who ask later.
    #[schema(min_length = 1, max_length = 1000, example = "wrong prices upstream")]
    reason: String,
    /// Who asks; where callers log in, for whom.
    #[schema(required = false, min_length = 1, max_length = 256)]
    actor: String,
}

/// Pause a view
///
/// From the answer on nothing is applied, in no process and to no build, until it is resumed; reads go on. Instances stay in
/// their group. Decisions are taken and carried out after the resumption, and an operation under way waits where it is. Of a
/// view that is paused already, the answer says since when.
#[utoipa::path(post, path = "/ops/views/{view}/pause", operation_id = "pause_view", tag = "operations",
    params(
        ("view" = String, Path, description = "Name of the view", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "orders"),
        ("Idempotency-Key" = Option<String>, Header, description = "A call repeated with the same key gets the same answer.",
            min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$"),
    ),
    request_body(content = StandstillRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "It is paused", body = StandstillBody),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "`idempotency_key_reused`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn pause(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    stand_still(&api, &request, payload, Standstill::Pause).await
}

/// Resume a view
///
/// It goes on where it stood. Of a view that is not paused, nothing changes.
#[utoipa::path(post, path = "/ops/views/{view}/resume", operation_id = "resume_view", tag = "operations",
    params(
        ("view" = String, Path, description = "Name of the view", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "orders"),
        ("Idempotency-Key" = Option<String>, Header, description = "A call repeated with the same key gets the same answer.",
            min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$"),
    ),
    request_body(content = StandstillRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "It goes on", body = StandstillBody),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "`idempotency_key_reused`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn resume(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    stand_still(&api, &request, payload, Standstill::Resume).await
}

async fn stand_still(
    api: &Api,
    request: &HttpRequest,
    payload: web::Payload,
    asked: Standstill,
) -> Result<HttpResponse, Problem> {
    let (key, bytes) = read(request, payload).await?;
    let mut body = Body::parse(&bytes, &["reason", "actor"])?;
    let why = why(&mut body, request);
    body.finish()?;
    let desk = desk_of(api, path_part(request, "view"))?;
    let once = key.as_deref().map(|key| (key, spell as SpellPause));
    let (answer, is_replayed) = match desk.stand_still(asked, &why, once).await? {
        CalledPause::Before(answer) => (answer, true),
        CalledPause::Now(pause) => {
            let answer = spell(desk.view, pause.as_ref());
            for board in api.state.views.iter().filter(|board| board.view == desk.view) {
                board.look_now();
            }
            (answer, false)
        }
    };
    let mut response = HttpResponse::Ok();
    if is_replayed {
        response.insert_header(("Idempotent-Replayed", "true"));
    }
    Ok(response.json(answer.body))
}
