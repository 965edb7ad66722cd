//! `/api/streams/{id}/deploy` and its like: what is wanted of a stream. Each writes that down and waits a little for the engine;
//! asked again it has no further effect.

use std::time::Duration;

use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, web};

use super::bodies::{PlanBody, StreamBody, ValidationBody};
use super::conditions::{if_match, words};
use super::requests::{DeployBody, StopBody, TextBody, manager, read_any, script};
use super::{actor, own, part};
use crate::api::Api;
use crate::api::answer::tagged_json;
use crate::api::parameters::Parameters;
use crate::api::problem::Problem;
use crate::manager::Manager;
use crate::manager::definition::Definition;
use crate::manager::manager::{DeployOptions, StatementKind, StopOptions};

/// How long the engine is waited for: `waitMs`, as long as may be if nobody says.
pub(super) fn patience(api: &Api, parameters: &mut Parameters) -> Duration {
    let most = api.state.settings.max_wait_ms;
    Duration::from_millis(parameters.number("waitMs", 0..=most).unwrap_or(most))
}

/// Who does it, how long the engine is waited for, the stream, which is the caller's to change, and the version that they have read.
async fn asked<'a>(
    api: &'a Api,
    request: &HttpRequest,
) -> Result<(&'a Manager, Duration, (Definition, Option<i32>)), Problem> {
    let manager = manager(api)?;
    let mut parameters = Parameters::parse(request.query_string(), &["waitMs"]);
    let patience = patience(api, &mut parameters);
    parameters.finish()?;
    Ok((manager, patience, (own(manager, request).await?, if_match(request)?)))
}

/// 200 where everything is as it is wanted, else 202: what has happened so far is in the body.
pub(super) fn told(definition: Definition) -> Result<HttpResponse, Problem> {
    let mut response = if definition.is_settled() { HttpResponse::Ok() } else { HttpResponse::Accepted() };
    let (version, body) = (definition.version, StreamBody::from(definition));
    tagged_json(&HeaderMap::new(), &mut response, (&words(version), &body), 2_048)
}

/// Deploy a stream
///
/// Its text shall run. 200 says that it is seen to run; 202 that this is written down and under way: `state`, `step` and
/// `lastError` say how far it is, and it goes on whether somebody waits or not, also if the engine is away now. Where another text
/// runs, this one takes its place and keeps its state; if that cannot be, the call is refused unless `acceptStateLoss` is given.
#[utoipa::path(post, path = "/api/streams/{id}/deploy", operation_id = "deploy_stream", tag = "streams",
    params(
        ("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("waitMs" = Option<u64>, Query, description = "Milliseconds to wait until it runs; the most that may be if left out.", minimum = 0, maximum = 5000),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what the caller has read: if somebody has changed it since, nothing is done (412)."),
    ),
    request_body = Option<DeployBody>,
    responses(
        (status = 200, description = "It runs", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 202, description = "It is about to run", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
    ))]
pub async fn deploy(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let (manager, patience, (current, expected_version)) = asked(&api, &request).await?;
    let mut body = read_any((&request, payload), manager, &["acceptStateLoss", "fromBeginning"]).await?;
    let options = DeployOptions {
        accept_state_loss: body.switch("acceptStateLoss").unwrap_or(false),
        from_beginning: body.switch("fromBeginning").unwrap_or(false),
        expected_version,
    };
    body.finish()?;
    let actor = actor(&request);
    let definition = manager.deploy(&current.id, options, patience, &actor).await?;
    tracing::info!(stream = definition.id, settled = definition.is_settled(), actor, "stream deployed");
    told(definition)
}

/// Stop a stream
///
/// It shall not run. Its topic stays; so does its state where the engine can keep it, and a later deployment goes on from there.
#[utoipa::path(post, path = "/api/streams/{id}/stop", operation_id = "stop_stream", tag = "streams",
    params(
        ("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("waitMs" = Option<u64>, Query, description = "Milliseconds to wait until it has stopped; the most that may be if left out.", minimum = 0, maximum = 5000),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what the caller has read: if somebody has changed it since, nothing is done (412)."),
    ),
    request_body = Option<StopBody>,
    responses(
        (status = 200, description = "It has stopped", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 202, description = "It is about to stop", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
    ))]
pub async fn stop(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let (manager, patience, (current, expected_version)) = asked(&api, &request).await?;
    let mut body = read_any((&request, payload), manager, &["discardState"]).await?;
    let options = StopOptions { discard_state: body.switch("discardState").unwrap_or(false), expected_version };
    body.finish()?;
    let actor = actor(&request);
    let definition = manager.stop(&current.id, options, patience, &actor).await?;
    tracing::info!(stream = definition.id, settled = definition.is_settled(), actor, "stream stopped");
    told(definition)
}

/// Pause a stream
///
/// It keeps its state and does nothing until it is resumed.
#[utoipa::path(post, path = "/api/streams/{id}/pause", operation_id = "pause_stream", tag = "streams",
    params(
        ("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("waitMs" = Option<u64>, Query, description = "Milliseconds to wait until it stands still; the most that may be if left out.", minimum = 0, maximum = 5000),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what the caller has read: if somebody has changed it since, nothing is done (412)."),
    ),
    responses(
        (status = 200, description = "It stands still", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 202, description = "It is about to", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
    ))]
pub async fn pause(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let (manager, patience, (current, expected_version)) = asked(&api, &request).await?;
    read_any((&request, payload), manager, &[]).await?.finish()?;
    let actor = actor(&request);
    let definition = manager.pause(&current.id, expected_version, patience, &actor).await?;
    tracing::info!(stream = definition.id, settled = definition.is_settled(), actor, "stream paused");
    told(definition)
}

/// Resume a stream
///
/// It goes on where it was paused.
#[utoipa::path(post, path = "/api/streams/{id}/resume", operation_id = "resume_stream", tag = "streams",
    params(
        ("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("waitMs" = Option<u64>, Query, description = "Milliseconds to wait until it runs; the most that may be if left out.", minimum = 0, maximum = 5000),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what the caller has read: if somebody has changed it since, nothing is done (412)."),
    ),
    responses(
        (status = 200, description = "It runs", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 202, description = "It is about to run", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
    ))]
pub async fn resume(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let (manager, patience, (current, expected_version)) = asked(&api, &request).await?;
    read_any((&request, payload), manager, &[]).await?.finish()?;
    let actor = actor(&request);
    let definition = manager.resume(&current.id, expected_version, patience, &actor).await?;
    tracing::info!(stream = definition.id, settled = definition.is_settled(), actor, "stream resumed");
    told(definition)
}

/// What would a deployment do?
///
/// What would happen if this text, or that of the stream, were deployed now, and what state would be lost. Changes nothing.
#[utoipa::path(post, path = "/api/streams/{id}/plan", operation_id = "plan_stream", tag = "streams",
    params(("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$")),
    request_body = Option<TextBody>,
    responses((status = 200, description = "What would happen", body = PlanBody)))]
pub async fn plan(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let id = part(&request, "id")?;
    let mut body = read_any((&request, payload), manager, &["sqlScript"]).await?;
    let sql = script(&mut body, false);
    body.finish()?;
    let plan = manager.plan(&id, sql.as_deref()).await?;
    Ok(HttpResponse::Ok().json(PlanBody::from(plan)))
}

/// Can a stream's text run?
///
/// The same as `POST /api/validate`, for this text or that of the stream, on its engine.
#[utoipa::path(post, path = "/api/streams/{id}/validate", operation_id = "validate_stream", tag = "streams",
    params(("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$")),
    request_body = Option<TextBody>,
    responses((status = 200, description = "What was found", body = ValidationBody)))]
pub async fn validate_stream(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let definition = manager.get(&part(&request, "id")?).await?;
    let mut body = read_any((&request, payload), manager, &["sqlScript"]).await?;
    let sql = script(&mut body, false).unwrap_or(definition.sql_script);
    body.finish()?;
    let found = manager.validate(Some(definition.engine), StatementKind::Persistent, &sql).await?;
    Ok(HttpResponse::Ok().json(ValidationBody::from(found)))
}
